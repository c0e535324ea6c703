"""Reading a VAE that stands in for a model's own."""

from typing import Any, Final

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file

from service.config.table import Config
from service.core.recipe import Recipe
from service.diffusion import from_folder
from service.diffusion.from_file import fill
from service.errors import ModelUnsuitable
from service.models.layout import Layout
from service.models.vae import source
from service.models.vae.source import KL, PREFIX, TINY, VaeSource

KINDS: Final[dict[str, Any]] = {KL: AutoencoderKL, TINY: AutoencoderTiny}
ALL: Final = "all"


def chosen(config: Config, recipe: Recipe, layout: Layout) -> VaeSource | None:
    """Return the VAE that decodes in place of the model's own; None for its own.

    Raises:
        ModelError: it is not there, or something else.

    """
    name, paths = config.vae or recipe.vae or "", bool(config.vae)
    if config.tiny_vae and config.tiny_vae_use == ALL:
        name, paths = config.tiny_vae, True
    own = layout.configs["vae"]
    like = {"like": own} if own.get("_class_name", KL) == KL else {}
    return source.find(name, config.model_cache_dir, paths=paths, **like) if name else None


def preview(config: Config) -> VaeSource | None:
    """Return the VAE that decodes previews only; None for none.

    Raises:
        ModelError: it is not there, or something else.

    """
    if not config.tiny_vae or config.tiny_vae_use == ALL:
        return None
    return source.find(config.tiny_vae, config.model_cache_dir, paths=True)


def read(found: VaeSource, dtype: torch.dtype) -> Any:
    """Return the network, on the CPU.

    Raises:
        ModelError: it is damaged, or its weights are not those of its figures.

    """
    kind = KINDS[found.kind]
    if found.path.is_dir():
        return from_folder.network(found.path, kind, dtype, half=dtype == torch.float16)
    with init_empty_weights(include_buffers=False):
        made = kind.from_config(dict(found.config))
    held = load_file(found.path)
    if found.compvis:
        named = convert_ldm_vae_checkpoint(
            {f"{PREFIX}{key.removeprefix(PREFIX)}": value for key, value in held.items()},
            made.config,
        )
    else:
        named = {key.removeprefix(PREFIX): value for key, value in held.items()}
    fill(
        made,
        named,
        owner=str(found.path),
        configuration="the VAE of the model",
        cure="Use a VAE that was made for this kind of model.",
        part="vae",
        dtype=dtype,
    )
    return made


def demand_fit(name: str, vae: Any, own: Any) -> None:
    """Refuse a VAE of other latents than the model's.

    Raises:
        ModelUnsuitable: with what differs.

    """
    wanted, has = _latents(own), _latents(vae)
    if wanted != has:
        raise ModelUnsuitable(
            f"The VAE {name} has latents of {has[0]} channels, one for {has[1]} pixels along a "
            f"side, and the model has {wanted[0]}, one for {wanted[1]}. Use a VAE that was made "
            "for this kind of model."
        )


def _latents(vae: Any) -> tuple[int, int]:
    """Return the channels of the latents, and the pixels to a latent along a side."""
    return vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1)
