"""Adapter files with random weights, and the changes of weights that they mean.

Nothing here comes from the code under test: names are made as the trainers make them, and each
change is written as the papers have it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

PREFIXES: Final = {
    "unet": "lora_unet",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
}
Changes = dict[str, dict[str, torch.Tensor]]
"""By part and module the change of the weight, at weight 1."""


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A file, and what it means."""

    path: Path
    changes: Changes


def layers(part: Any, words: Iterable[str]) -> dict[str, Any]:
    """Return the linear layers and convolutions whose names contain one of some words."""
    return {
        name: module
        for name, module in part.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        and any(word in name for word in words)
    }


def kohya_name(part: str, module: str, *, two: bool) -> str:
    """Return the name that kohya's scripts give a module; ``two``: of a model with two encoders."""
    prefix = PREFIXES[part] + ("1" if two and part == "text_encoder" else "")
    # They were written when transformers still had a ``text_model`` in between.
    middle = "" if part == "unet" or module.startswith("text_model") else "text_model_"
    return f"{prefix}_{middle}{module.replace('.', '_')}"


def lora(
    path: Path,
    pipeline: Any,
    targets: Mapping[str, Iterable[str]],
    *,
    seed: int = 0,
    rank: int = 4,
    alpha: float | None = 2.0,
    size: float = 0.3,
    form: str = "kohya",
    metadata: Mapping[str, str] | None = None,
) -> AdapterFile:
    """Write a LoRA of the modules whose names contain the words in ``targets``, by part.

    ``form`` is ``kohya`` or ``peft``; without ``alpha`` the file names none.
    """
    generator = torch.Generator().manual_seed(seed)
    two = getattr(pipeline, "text_encoder_2", None) is not None
    tensors: dict[str, torch.Tensor] = {}
    changes: Changes = {}
    for part, words in targets.items():
        for name, layer in layers(getattr(pipeline, part), words).items():
            out, into, *kernel = layer.weight.shape
            down = torch.randn(rank, into, *kernel, generator=generator)
            down /= down[0].numel() ** 0.5
            up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator) * size
            scale = 1.0 if alpha is None else alpha / rank
            product = (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
            changes.setdefault(part, {})[name] = scale * product
            if form == "kohya":
                key = kohya_name(part, name, two=two)
                tensors[f"{key}.lora_down.weight"] = down
                tensors[f"{key}.lora_up.weight"] = up
                if alpha is not None:
                    tensors[f"{key}.alpha"] = torch.tensor(alpha)
            else:
                tensors[f"{part}.{name}.lora_A.weight"] = down
                tensors[f"{part}.{name}.lora_B.weight"] = up
    save_file(tensors, path, metadata=dict(metadata or {}))
    return AdapterFile(path=path, changes=changes)


def dense(
    path: Path,
    pipeline: Any,
    kind: str,
    targets: Mapping[str, Iterable[str]],
    *,
    seed: int = 0,
    rank: int = 3,
    alpha: float = 1.5,
    size: float = 0.3,
) -> AdapterFile:
    """Write an adapter of another kind than LoRA: ``kind`` is a key of ``KINDS``."""
    generator = torch.Generator().manual_seed(seed)
    two = getattr(pipeline, "text_encoder_2", None) is not None
    tensors: dict[str, torch.Tensor] = {}
    changes: Changes = {}
    for part, words in targets.items():
        for name, layer in layers(getattr(pipeline, part), words).items():
            weight = layer.weight.detach().clone()
            found, change = KINDS[kind](weight, rank, alpha, generator)
            key = kohya_name(part, name, two=two)
            scale = size * weight.std() / change.std() if kind in PRODUCTS else 1.0
            for role in PRODUCTS.get(kind, ()):
                if role in found:
                    found[role] = found[role] * scale
            tensors |= {f"{key}.{role}": each.contiguous() for role, each in found.items()}
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
            changes.setdefault(part, {})[name] = change * scale
    save_file(tensors, path)
    return AdapterFile(path=path, changes=changes)


Made = tuple[dict[str, torch.Tensor], torch.Tensor]
"""Tensors by their role, and the change of the weight."""


def _loha(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """Hadamard product of two products (arXiv:2108.06098, proposition 1)."""
    out, into = weight.shape[0], weight[0].numel()
    a, c = (torch.randn(out, rank, generator=draw) for _ in range(2))
    b, d = (torch.randn(rank, into, generator=draw) for _ in range(2))
    change = (a @ b) * (c @ d)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    return dict(zip(names, (a, b, c, d), strict=True)), change.view(weight.shape) * alpha / rank


def _lokr(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """Kronecker product with a second factor of low rank (arXiv:2309.14859, section 3.2)."""
    out, into, *kernel = weight.shape
    one = torch.randn(2, 2, generator=draw)
    up = torch.randn(out // 2, rank, generator=draw)
    down = torch.randn(rank, into // 2, *kernel, generator=draw)
    two = torch.einsum("or,r...->o...", up, down)
    change = torch.cat(
        [torch.cat([one[row, column] * two for column in range(2)], 1) for row in range(2)], 0
    )
    found = {"lokr_w1": one, "lokr_w2_a": up, "lokr_w2_b": down}
    return found, change * alpha / rank


def _lokr_whole(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """Kronecker product of two whole factors, for which alpha means nothing."""
    del rank, alpha
    out, into, *kernel = weight.shape
    one = torch.randn(2, 2, generator=draw)
    two = torch.randn(out // 2, into // 2, *kernel, generator=draw)
    rows = [torch.cat([one[row, column] * two for column in range(2)], 1) for row in range(2)]
    return {"lokr_w1": one, "lokr_w2": two}, torch.cat(rows, 0)


def _tucker(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """LoCon with a core: the kernel between two 1x1 convolutions, one after the other."""
    out, into, *kernel = weight.shape
    kernel = kernel or [1, 1]
    down = torch.randn(rank, into, 1, 1, generator=draw)
    core = torch.randn(rank, rank, *kernel, generator=draw)
    up = torch.randn(out, rank, 1, 1, generator=draw)
    # What the three do to each single input, which is what a weight is.
    points = torch.eye(into)[:, :, None, None]
    inner = torch.nn.functional.conv2d(points, down)
    change = torch.zeros(out, into, *kernel)
    for high in range(kernel[0]):
        for wide in range(kernel[1]):
            middle = torch.nn.functional.conv2d(inner, core[:, :, high : high + 1, wide : wide + 1])
            change[:, :, high, wide] = torch.nn.functional.conv2d(middle, up)[:, :, 0, 0].t()
    found = {"lora_down.weight": down, "lora_mid.weight": core, "lora_up.weight": up}
    return found, change.view(weight.shape) * alpha / rank


def _dora(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """LoRA of the direction, and a size for each output (arXiv:2402.09353, equation 5)."""
    out, into, *kernel = weight.shape
    down = torch.randn(rank, into, *kernel, generator=draw) / weight[0].numel() ** 0.5
    up = torch.randn(out, rank, *(1 for _ in kernel), generator=draw) * 0.3
    product = (up.flatten(1) @ down.flatten(1)).view(weight.shape) * alpha / rank
    sizes = weight.flatten(1).norm(dim=1) * (1 + 0.2 * torch.randn(out, generator=draw))
    moved = torch.stack(
        [size * row / row.norm() for size, row in zip(sizes, weight + product, strict=True)]
    )
    found = {"lora_down.weight": down, "lora_up.weight": up}
    ones = (1 for _ in (into, *kernel))
    return {**found, "dora_scale": sizes.view(out, *ones)}, moved - weight


def _dora_columns(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """DoRA as LyCORIS first had it: a size for each input."""
    _, into, *kernel = weight.shape
    found, _ = _dora(weight, rank, alpha, draw)
    down, up = found["lora_down.weight"], found["lora_up.weight"]
    moved = weight + (up.flatten(1) @ down.flatten(1)).view(weight.shape) * alpha / rank
    sizes = torch.stack([weight[:, n].norm() * (1.1 if n % 2 else 0.9) for n in range(into)])
    for number in range(into):
        moved[:, number] *= sizes[number] / moved[:, number].norm()
    shape = (1, into, *(1 for _ in kernel))
    return {**found, "dora_scale": sizes.view(shape)}, moved - weight


def _diff(weight: torch.Tensor, rank: int, alpha: float, draw: torch.Generator) -> Made:
    """Write the change as it is."""
    del rank, alpha
    change = torch.randn(weight.shape, generator=draw)
    return {"diff": change}, change


KINDS: Final[Mapping[str, Callable[..., Made]]] = {
    "loha": _loha,
    "lokr": _lokr,
    "lokr_whole": _lokr_whole,
    "tucker": _tucker,
    "dora": _dora,
    "dora_columns": _dora_columns,
    "diff": _diff,
}
PRODUCTS: Final[Mapping[str, tuple[str, ...]]] = {
    "loha": ("hada_w1_a",),
    "lokr": ("lokr_w1",),
    "lokr_whole": ("lokr_w1",),
    "tucker": ("lora_up.weight",),
    "diff": ("diff",),
}
"""Kinds whose change grows with one of their tensors, and that one."""

ATTENTION: Final = ("to_q", "to_v", "to_out")
REST: Final = ("to_k", "ff.net", "conv", "proj_in", "time_emb", "downsamplers", "upsamplers")
TEXT: Final = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def several(folder: Path, pipeline: Any) -> dict[str, AdapterFile]:
    """Write an adapter of every kind and form for a model; return them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        name: folder / f"{name}.safetensors" for name in ("attention", "everything", "peft", *KINDS)
    }
    encoders = [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipeline, name)]
    whole: dict[str, Iterable[str]] = {"unet": REST, **dict.fromkeys(encoders, TEXT)}
    some = {"unet": ("to_k", "to_out"), "text_encoder": TEXT[:4]}
    few = {"unet": ("attn1", "resnets.0.conv1"), "text_encoder": ("q_proj",)}
    return {
        "attention": lora(paths["attention"], pipeline, {"unet": ATTENTION}, seed=1),
        "everything": lora(paths["everything"], pipeline, whole, seed=2, rank=8, alpha=8.0),
        "peft": lora(paths["peft"], pipeline, some, seed=3, alpha=None, form="peft"),
        **{kind: dense(paths[kind], pipeline, kind, few, seed=4) for kind in KINDS},
    }
