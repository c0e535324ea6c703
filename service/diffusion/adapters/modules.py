"""The modules of a loaded model that adapters can change, by the names that files have for them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from service.models.adapters.names import Part, flat

Layer = torch.nn.Linear | torch.nn.Conv2d

RESNET: Final = {
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
ENDS: Final = {
    "conv_in": "input_blocks_0_0",
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
    "add_embedding_linear_1": "label_emb_0_0",
    "add_embedding_linear_2": "label_emb_0_2",
    "conv_out": "out_2",
}
"""Modules of a UNet, as diffusers and as the original code of Stable Diffusion name them."""

BLOCK: Final = re.compile(
    r"(?P<way>down|up)_blocks_(?P<block>\d+)_(?P<kind>resnets|attentions|downsamplers|upsamplers)"
    r"_(?P<number>\d+)_(?P<rest>.+)"
)
MIDDLE: Final = re.compile(r"mid_block_(?P<kind>resnets|attentions)_(?P<number>\d+)_(?P<rest>.+)")


class Modules:
    """Linear layers and convolutions of the parts that adapters change."""

    def __init__(self, parts: Mapping[str, torch.nn.Module]) -> None:
        self._parts = {Part(name): parts[name] for name in Part if name in parts}
        self._names: dict[Part, dict[str, str]] = {}
        self._layers: dict[Part, dict[str, Layer]] = {}

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that the model has."""
        return frozenset(self._parts)

    def name(self, part: Part, module: str) -> str | None:
        """Return the name in the model of a module as a file names it; None if there is none."""
        if part not in self._names:
            self._names[part] = dict(_names(self._parts[part], self.layers(part)))
        return self._names[part].get(module)

    def vocabulary(self, part: Part) -> torch.nn.Embedding:
        """Return the vectors of the tokens that a text encoder knows."""
        found: torch.nn.Embedding = self._parts[part].get_input_embeddings()  # type: ignore[operator] # transformers adds it
        return found

    def layers(self, part: Part) -> Mapping[str, Layer]:
        """Return the layers of a part by their names in the model."""
        if part not in self._layers:
            self._layers[part] = {
                name: module
                for name, module in self._parts[part].named_modules()
                if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
            }
        return self._layers[part]


def _names(root: torch.nn.Module, layers: Mapping[str, Layer]) -> Iterator[tuple[str, str]]:
    config: Any = getattr(root, "config", None)
    per_block = getattr(config, "layers_per_block", None)
    for name in layers:
        yield flat(name), name
        for original in original_names(flat(name), per_block):
            yield original, name


def original_names(module: str, per_block: object) -> tuple[str, ...]:
    """Return the names of a UNet's module in the original code, which some trainers write.

    There the blocks of a way are counted through: each of ``per_block`` resnets, with its
    attention, is a block, and so is a sampler on the way down; on the way up a sampler belongs
    to the last block before it.
    """
    if module in ENDS:
        return (ENDS[module],)
    if found := MIDDLE.fullmatch(module):
        attention = found["kind"] == "attentions"
        place = f"middle_block_{2 * int(found['number']) + attention}"
        return _inside(place, found["rest"], attention=attention)
    if not isinstance(per_block, int) or (found := BLOCK.fullmatch(module)) is None:
        return ()
    block, each = int(found["block"]), per_block + 1
    if found["kind"] == "downsamplers":
        return (f"input_blocks_{(block + 1) * each}_0_op",)
    if found["kind"] == "upsamplers":
        # It comes after the attention, where there is one.
        return tuple(f"output_blocks_{(block + 1) * each - 1}_{n}_conv" for n in (1, 2))
    down, attention = found["way"] == "down", found["kind"] == "attentions"
    place = f"{'in' if down else 'out'}put_blocks_{down + block * each + int(found['number'])}"
    return _inside(f"{place}_{int(attention)}", found["rest"], attention=attention)


def _inside(place: str, rest: str, *, attention: bool) -> tuple[str, ...]:
    """Return the name of a layer of an attention or a resnet."""
    if attention:
        return (f"{place}_{rest}",)
    return (f"{place}_{RESNET[rest]}",) if rest in RESNET else ()
