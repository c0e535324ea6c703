"""The interface between the step loop and a family of models."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.diffusion.conditioning.encoding import (
    AS_DIFFUSERS,
    Conditioning,
    Encode,
    Reading,
    TextEmbedding,
    Word,
)


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """The properties that rows must share to sit in one call of a model."""

    model: str
    shape: tuple[int, int] | None
    """Height and width of the latents; None in a family that mixes shapes."""
    input_channels: int
    tokens: int
    """Length of the text embeddings."""


@dataclass(frozen=True, kw_only=True)
class FamilyLimits:
    """Numbers of a loaded model that the loop works with."""

    scale_factor: int
    """Pixels to a latent cell along a side."""
    latent_channels: int
    input_channels: int
    prompt_tokens: int
    """Longest prompt the text encoder reads, in tokens, its marks included."""
    mixes_shapes: bool = False
    """Whether latents of different sizes may sit in one call."""

    def latent_size(self, width: int, height: int) -> tuple[int, int]:
        """Return height and width of the latents of an image in pixels."""
        return height // self.scale_factor, width // self.scale_factor


@dataclass(frozen=True)
class Encoded:
    """An image as the VAE's encoder found it: a distribution of latents, or latents."""

    found: Any

    @property
    def values(self) -> torch.Tensor:
        """All numbers of it."""
        return self.found if isinstance(self.found, torch.Tensor) else self.found.parameters

    def latents(self, generator: torch.Generator) -> torch.Tensor:
        """Return latents that are drawn from it, unscaled."""
        if isinstance(self.found, torch.Tensor):
            return self.found
        drawn: torch.Tensor = self.found.sample(generator)
        return drawn


class DenoiseRow(Protocol):
    """One image in a call of the denoiser; its timestep is a scalar on the CPU."""

    @property
    def conditioning(self) -> Conditioning: ...  # noqa: D102 - the class says it

    @property
    def timestep(self) -> torch.Tensor: ...  # noqa: D102 - the class says it

    def model_input(self) -> torch.Tensor: ...  # noqa: D102 - the loop's row says it


class Family(ABC):
    """A loaded model as the loop uses it; no call changes anything in it."""

    stages: ClassVar[Mapping[Stage, tuple[str, ...]]]
    """Parts of the pipeline by the stage that computes with them."""
    counts_positions: ClassVar[bool] = False
    """Whether its pipeline tells schedulers where they begin; else they look the timestep up."""
    upcasts_vae: ClassVar[bool] = False
    """Whether its VAE may overflow in float16."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.pipeline = pipeline
        """diffusers' pipeline, the holder of the parts."""
        self.parts: dict[Stage, dict[str, torch.nn.Module]] = {
            stage: {
                name: part for name in names if (part := getattr(pipeline, name, None)) is not None
            }
            for stage, names in self.stages.items()
        }
        """The networks by stage and name; the VAE is in two stages."""
        self.decoder: Any = pipeline.vae
        self.small_decoder: Any = None
        """An AutoencoderTiny for previews; None for none."""
        self.has_safety_checker = bool(self.parts[Stage.SAFETY])
        self._denoiser = getattr(pipeline, self.stages[Stage.DENOISE][0])
        self._device = device
        self._dtype: torch.dtype = self._denoiser.dtype
        self.limits = FamilyLimits(
            scale_factor=pipeline.vae_scale_factor,
            latent_channels=self.decoder.config.latent_channels,
            input_channels=self._denoiser.config.in_channels,
            prompt_tokens=pipeline.tokenizer.model_max_length,
        )

    @abstractmethod
    def encode(self, text: str, reading: Reading = AS_DIFFUSERS, /) -> TextEmbedding:
        """Return the embedding of one text."""

    @abstractmethod
    def condition(
        self,
        request: GenerationSpec,
        encode: Encode,
        words: Sequence[Word] = (),
        *,
        after: int = 0,
    ) -> Conditioning:
        """Return the conditioning of a request's images, as ``pipe(...)`` would build it.

        ``words`` are the names in its texts that stand for vectors. Its steps follow ``after``
        others, of a first pass.
        """

    @abstractmethod
    def denoise(self, rows: Sequence[DenoiseRow]) -> list[torch.Tensor]:
        """Return each row's prediction, ``[texts, channels, height, width]``, from one call.

        A row takes a place in the call for each of its texts, the negative prompt's first, and
        what it gets does not depend on the length of other rows' texts. Neither rows
        nor schedulers change, so a call that failed can be repeated with fewer rows.
        """

    @abstractmethod
    def is_unsafe(self, image: RawImage) -> bool:
        """Return the safety checker's verdict."""

    def latents(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        """Return noise ``[1, channels, height, width]`` from a generator of the CPU."""
        shape = (1, self.limits.latent_channels, *self.limits.latent_size(width, height))
        return torch.randn(shape, generator=generator, dtype=self._dtype, device="cpu")

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """The networks by name."""
        return {name: part for named in self.parts.values() for name, part in named.items()}

    def encode_image(self, image: torch.Tensor) -> Encoded:
        """Return what the VAE makes of an image ``[1, 3, height, width]`` from -1 to 1."""
        found = self.decoder.encode(image.to(self._device, self.decoder.dtype))
        # An AutoencoderTiny has no distribution.
        return Encoded(found.latent_dist if hasattr(found, "latent_dist") else found.latents)

    def sampled(self, encoded: Encoded, generator: torch.Generator) -> torch.Tensor:
        """Return latents ``[1, channels, height, width]`` in the scale of the denoiser."""
        return self._scaled(encoded.latents(generator).to(self._dtype))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images ``[1, 3, height, width]`` from -1 to 1."""
        scaled = self._unscaled(latents).to(self.decoder.dtype)
        image: torch.Tensor = self.decoder.decode(scaled, return_dict=False)[0]
        return image

    def glance(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Return images as ``decode`` does, roughly and fast; None where nothing can."""
        small = self.small_decoder
        if small is None:
            return None
        scaled = (latents / small.config.scaling_factor).to(small.device, small.dtype)
        image: torch.Tensor = small.decode(scaled, return_dict=False)[0]
        return image

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Scale what the VAE's encoder found, as the pipelines do."""
        scaled: torch.Tensor = self.decoder.config.scaling_factor * latents
        return scaled

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Undo the scaling that the VAE's encoder side applies, as the pipelines do."""
        unscaled: torch.Tensor = latents / self.decoder.config.scaling_factor
        return unscaled
