"""Random numbers in the place of trained ones, of a size at which no activation overflows."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from scripts.random_weights.shapes import Part

DTYPES: Final[Mapping[str, torch.dtype]] = {"float16": torch.float16, "float32": torch.float32}

PREFIX: Final = "text_model."
"""Of a CLIP text encoder's names in files; transformers 5 has dropped it in memory."""


def names(part: Part) -> dict[str, torch.Size]:
    """Return name and shape of each weight, as files have them."""
    found = {name: weight.shape for name, weight in part.empty().state_dict().items()}
    if part.library == "diffusers":
        return found
    return {_published(name): shape for name, shape in found.items()}


def _published(name: str) -> str:
    return name if name.startswith((PREFIX, "text_projection.")) else PREFIX + name


def drawn(
    name: str, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Draw one weight.

    Norms do nothing, biases are 0, and matrices keep the scale of what they are multiplied
    with: evenly from +-1/sqrt(inputs), a third of its variance (the default of torch's own
    layers, He et al., arXiv:1502.01852). So residual sums grow by a fraction at each block,
    and stay far below 65,504, where float16 ends.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator).to(dtype)


def write(
    part: Part,
    path: Path,
    dtype: torch.dtype,
    generator: torch.Generator,
    done: Callable[[int], object] = lambda _bytes: None,
) -> None:
    """Write the weights of one network; ``done`` is told of bytes.

    Memory holds them once, in the format that is written, and safetensors writes them from where
    they are. Each is drawn from a seed of its own, so that all cores draw at once.
    """
    shapes = names(part)
    seeds = torch.randint(2**31, (len(shapes),), generator=generator).tolist()

    def draw(name: str, seed: int) -> torch.Tensor:
        return drawn(name, shapes[name], dtype, torch.Generator().manual_seed(seed))

    tensors = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for name, tensor in zip(shapes, pool.map(draw, shapes, seeds), strict=True):
            tensors[name] = tensor
            done(tensor.nbytes)
    save_file(tensors, path, metadata={"format": "pt"})
