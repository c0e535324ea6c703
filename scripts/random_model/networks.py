"""Neural networks of the published shapes, with random numbers in the place of trained ones."""

import importlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
"""Library and class of each network, by the folder that it has in a model."""

PREFIX: Final = "text_model."
"""Of a CLIP text encoder's names in files; transformers 5 has dropped it in memory."""


def empty(name: str, config: Mapping[str, Any]) -> Any:
    """Return a network without memory for its weights (``torch.device("meta")``)."""
    library, kind = KINDS[name]
    build = getattr(importlib.import_module(library), kind)
    with torch.device("meta"):
        if library == "transformers":
            return build(build.config_class(**config))
        return build(**config)


def parameters(name: str, config: Mapping[str, Any]) -> int:
    """Return how many weights a network has."""
    return sum(weight.numel() for weight in empty(name, config).parameters())


def drawn(
    name: str, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Draw one weight, of a size at which no activation overflows.

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
    name: str,
    config: Mapping[str, Any],
    folder: Path,
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    done: Callable[[int], object],
) -> None:
    """Write one network with its configuration; ``done`` is told of bytes.

    Memory holds the weights once, in the format that is written, and safetensors writes them from
    where they are. Each is drawn from a seed of its own, so that all cores draw at once.
    """
    library, kind = KINDS[name]
    model = empty(name, config)
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    stem = "diffusion_pytorch_model"
    folder.mkdir()
    if library == "transformers":
        stem = "model"
        whole = (PREFIX, "text_projection.")
        shapes = {n if n.startswith(whole) else PREFIX + n: shape for n, shape in shapes.items()}
        model.config.architectures = [kind]
        model.config.save_pretrained(folder)
    else:
        model.save_config(folder)
    seeds = torch.randint(2**31, (len(shapes),), generator=generator).tolist()

    def draw(name: str, seed: int) -> torch.Tensor:
        return drawn(name, shapes[name], dtype, torch.Generator().manual_seed(seed))

    tensors = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for weight, tensor in zip(shapes, pool.map(draw, shapes, seeds), strict=True):
            tensors[weight] = tensor
            done(tensor.nbytes)
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
