"""An adapter file read into the changes that it makes to a loaded model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from safetensors import safe_open

from service.diffusion.adapters.deltas import Delta, delta
from service.diffusion.adapters.modules import Layer, Modules
from service.diffusion.conditioning.encoding import Word
from service.errors import AdapterUnsuitable
from service.models.adapters.catalog import Entry, Stamp
from service.models.adapters.header import AdapterHeader, some
from service.models.adapters.names import Part, Place


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """The changes of an adapter, by part and by the name of the layer in the model."""

    name: str
    stamp: Stamp
    deltas: Mapping[Part, Mapping[str, Delta]] = field(default_factory=dict)
    word: Word | None = None
    """What an embedding stands for, which changes no layer."""
    short_hash: str = ""
    """What AUTOMATIC1111 knows its file by."""

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        layers = [each for part in self.deltas.values() for each in part.values()]
        tensors = [tensor for each in layers for tensor in each.tensors]
        tensors += self.word.vectors.values() if self.word else ()
        return sum(each.numel() * each.element_size() for each in tensors)

    def changes(self, part: Part) -> bool:
        """Whether it changes a part."""
        return bool(self.deltas.get(part))

    def to(self, device: torch.device) -> "Loaded":
        """Return it on a device."""
        deltas = {
            part: {name: each.to(device) for name, each in layers.items()}
            for part, layers in self.deltas.items()
        }
        word = self.word
        if word is not None:
            vectors = {part: each.to(device) for part, each in word.vectors.items()}
            word = Word(name=word.name, vectors=vectors)
        return replace(self, deltas=deltas, word=word)


def read(entry: Entry, modules: Modules) -> Loaded:
    """Read an adapter into host memory, in the number format of the model.

    Raises:
        AdapterUnsuitable: it is made for another model, or damaged.

    """
    header = entry.header
    if header is None:
        raise AdapterUnsuitable(entry.problem)
    if header.vectors:
        return Loaded(name=entry.name, stamp=entry.stamp, word=_word(entry.name, header, modules))
    names = _layers(header, modules)
    deltas: dict[Part, dict[str, Delta]] = {}
    try:
        with safe_open(header.path, "pt") as file:
            for place, roles in header.modules.items():
                tensors = {role: file.get_tensor(found.key) for role, found in roles.items()}
                layer = modules.layers(place.part)[names[place]]
                changes = deltas.setdefault(place.part, {})
                changes[names[place]] = _delta(header, place, layer, tensors)
    except OSError as error:
        raise AdapterUnsuitable(
            f"{header.path.name} cannot be read ({error.strerror or error})."
        ) from error
    return Loaded(name=entry.name, stamp=entry.stamp, deltas=deltas)


def _word(name: str, header: AdapterHeader, modules: Modules) -> Word:
    """Read the vectors of an embedding, in the number format of the text encoders."""
    file = header.path.name
    made_for = f" (it is made for {header.family})" if header.family else ""
    cure = "Use an embedding that is made for this model's family."
    encoders = [part for part in (Part.TEXT, Part.TEXT_2) if part in modules.parts]
    if {*encoders} != header.vectors.keys():
        theirs, ours = len(header.vectors), len(encoders)
        raise AdapterUnsuitable(
            f"{file} has vectors for {theirs} text encoder{'s' * (theirs > 1)}, and the model has "
            f"{ours}{made_for}. {cure}"
        )
    vectors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(header.path, "pt") as tensors:
            for part, found in header.vectors.items():
                known = modules.vocabulary(part).weight
                read_in = tensors.get_tensor(found.key).to(known.dtype).reshape(-1, found.shape[-1])
                if read_in.shape[1] != known.shape[1]:
                    raise AdapterUnsuitable(
                        f"{file} has vectors of {read_in.shape[1]} numbers, and the model's have "
                        f"{known.shape[1]}{made_for}. {cure}"
                    )
                if not bool(read_in.isfinite().all()):
                    raise AdapterUnsuitable(
                        f"{file} holds NaN or infinite values; use another copy of it."
                    )
                vectors[part] = read_in
    except OSError as error:
        raise AdapterUnsuitable(f"{file} cannot be read ({error.strerror or error}).") from error
    return Word(name=name, vectors=vectors)


def _layers(header: AdapterHeader, modules: Modules) -> dict[Place, str]:
    """Return the layer of each module that a file names."""
    names: dict[Place, str] = {}
    missing = []
    for place in header.modules:
        known = place.part in modules.parts
        name = modules.name(place.part, place.module) if known else None
        if name is None:
            missing.append(f"{place.part}.{place.module}")
        else:
            names[place] = name
    if missing:
        made_for = f" (it is made for {header.family})" if header.family else ""
        raise AdapterUnsuitable(
            f"{header.path.name} changes modules that the model does not have: {some(missing)}"
            f"{made_for}. Use an adapter that is made for this model's family."
        )
    if len(set(zip((p.part for p in names), names.values(), strict=True))) < len(names):
        raise AdapterUnsuitable(f"{header.path.name} names a module twice; use another copy of it.")
    return names


def _rank(tensors: Mapping[str, torch.Tensor]) -> int:
    for role in ("down", "w1_b", "k_w2_b", "k_w1_b"):
        if role in tensors:
            return tensors[role].shape[0]
    return 1


def _delta(
    header: AdapterHeader, place: Place, layer: Layer, tensors: Mapping[str, torch.Tensor]
) -> Delta:
    try:
        found = delta(layer, tensors, header.alpha(place, _rank(tensors)))
    except (ValueError, RuntimeError) as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        made_for = f" (it is made for {header.family})" if header.family else ""
        raise AdapterUnsuitable(
            f"{header.path.name} does not fit the model{made_for}: {place.part}.{place.module}: "
            f"{cause}. Use an adapter that is made for this model's family."
        ) from error
    if not all(bool(torch.isfinite(each).all()) for each in found.tensors):
        raise AdapterUnsuitable(
            f"{header.path.name} holds NaN or infinite values in {place.module}; use another copy."
        )
    return found
