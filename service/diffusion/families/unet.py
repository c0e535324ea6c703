"""Families with a UNet: Stable Diffusion 1.x and 2.x, and XL, by the parts of their pipelines."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from PIL import Image

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
from service.diffusion.conditioning.reader import Encoded, Encoder, count_tokens, read
from service.diffusion.conditioning.texts import Texts, texts_of
from service.diffusion.families.base import DenoiseRow, Family


class UNetFamily(Family):
    """Stable Diffusion 1.x and 2.x."""

    stages: ClassVar = {
        Stage.TEXT_ENCODE: ("text_encoder", "text_encoder_2"),
        Stage.VAE_ENCODE: ("vae",),
        Stage.DENOISE: ("unet",),
        Stage.VAE_DECODE: ("vae",),
        Stage.SAFETY: ("safety_checker",),
    }

    def encode(self, text: str, reading: Reading = AS_DIFFUSERS, /) -> TextEmbedding:
        """Return the embedding of one text."""
        if reading != AS_DIFFUSERS:
            return read(text, reading, self._encoders, self._device, self._run)
        return self._plain(text)

    def _plain(self, text: str) -> TextEmbedding:
        states, _ = self.pipeline.encode_prompt(
            text, self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return TextEmbedding(states=states)

    def condition(
        self,
        request: GenerationSpec,
        encode: Encode,
        words: Sequence[Word] = (),
        *,
        after: int = 0,
    ) -> Conditioning:
        """Return the conditioning of a request's images, as ``pipe(...)`` would build it."""
        texts, extras = texts_of(request, words), self._extras(request)
        # Several prompts are weighed against the negative one, whatever the scale.
        guided = texts.composed or ("timestep_cond" not in extras and request.guidance_scale > 1)
        by_step = texts.by_step(request.steps, after=after)
        embedded = {each: self._embedded(each, texts, encode, guided=guided) for each in by_step}
        counts = [
            count_tokens(each, texts.reading_of(each), self._encoders)
            for each in {each for _, *prompts in embedded for each in prompts}
        ]
        return Conditioning(
            texts=embedded[by_step[0]],
            weights=texts.prompt.weights,
            by_step=tuple(embedded[each] for each in by_step) if len(embedded) > 1 else (),
            extras=extras,
            tokens=max(tokens for tokens, _ in counts),
            tokens_cut=max(cut for _, cut in counts),
        )

    def _embedded(
        self, step: tuple[str, ...], texts: Texts, encode: Encode, *, guided: bool
    ) -> tuple[TextEmbedding, ...]:
        negative, *prompts = step
        found = tuple(encode(each, texts.reading_of(each)) for each in prompts)
        if not guided:
            return found
        reading = texts.reading_of(negative, negative=True)
        return (self._negative(negative, reading, encode, found[0]), *found)

    def denoise(self, rows: Sequence[DenoiseRow]) -> list[torch.Tensor]:
        """Return each row's prediction from one call of the UNet."""
        pairs = [(row, text) for row in rows for text in row.conditioning.texts]
        inputs = {id(row): row.model_input() for row in rows}
        # The timestep embedding computes in float32, so whole and fractional timesteps mix.
        timesteps = torch.stack([row.timestep.float() for row, _ in pairs])
        extras = {
            name: torch.cat([row.conditioning.extras[name] for row, _ in pairs])
            for name in rows[0].conditioning.extras
        }
        states, mask = _of_one_length([text.states for _, text in pairs])
        pooled = [text.pooled for _, text in pairs if text.pooled is not None]
        predicted = self._denoiser(
            torch.cat([inputs[id(row)] for row, _ in pairs]),
            timesteps.to(self._device, non_blocking=True),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep_cond=extras.pop("timestep_cond", None),
            added_cond_kwargs={**extras, "text_embeds": torch.cat(pooled)} if pooled else None,
            return_dict=False,
        )[0]
        return list(predicted.split([len(row.conditioning.texts) for row in rows]))

    def is_unsafe(self, image: RawImage) -> bool:
        """Return the safety checker's verdict."""
        pixels = np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)
        checker = self.pipeline.safety_checker
        features = self.pipeline.feature_extractor(Image.fromarray(pixels), return_tensors="pt")
        values = features.pixel_values.to(self._device, checker.dtype)
        _, flagged = checker(clip_input=values, images=[pixels / 255])
        return bool(flagged[0])

    def _extras(self, request: GenerationSpec) -> dict[str, torch.Tensor]:
        width = self._denoiser.config.time_cond_proj_dim
        if width is None:
            return {}
        # Guidance distillation, arXiv:2210.03142: the scale is an input, not a second row.
        scale = torch.tensor(request.guidance_scale - 1).repeat(1)
        embedded = self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
        return {"timestep_cond": embedded.to(device=self._device, dtype=self._dtype)}

    def _negative(
        self, text: str, reading: Reading, encode: Encode, prompt: TextEmbedding
    ) -> TextEmbedding:
        del prompt
        return encode(text, reading)

    @property
    def _encoders(self) -> list[Encoder]:
        """The text encoders, in the order in which their states stand side by side."""
        return [
            Encoder(
                name=f"text_encoder{end}",
                words=tokenizer,
                network=getattr(self.pipeline, f"text_encoder{end}"),
            )
            for end in ("", "_2")
            if (tokenizer := getattr(self.pipeline, f"tokenizer{end}", None)) is not None
        ]

    def _run(self, network: Any, tokens: torch.Tensor, mask: torch.Tensor, skipped: int) -> Encoded:
        masked = mask if getattr(network.config, "use_attention_mask", False) else None
        if not skipped:
            return network(tokens, attention_mask=masked)[0], None
        found = network(tokens, attention_mask=masked, output_hidden_states=True)
        # What the last layer gives goes through this, too.
        normalised = getattr(network, "text_model", network).final_layer_norm
        return normalised(found.hidden_states[-1 - skipped]), None


class XLFamily(UNetFamily):
    """Stable Diffusion XL: a second text encoder, and the size of the image as an input."""

    counts_positions: ClassVar = True
    upcasts_vae: ClassVar = True

    def _plain(self, text: str) -> TextEmbedding:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            text, device=self._device, do_classifier_free_guidance=False
        )
        return TextEmbedding(states=states, pooled=pooled)

    def _extras(self, request: GenerationSpec) -> dict[str, torch.Tensor]:
        size = (request.height, request.width)
        width = self.pipeline.text_encoder_2.config.projection_dim
        time_ids = self.pipeline._get_add_time_ids(  # noqa: SLF001 - the pipeline's own layout of the six numbers
            size, (0, 0), size, dtype=self._dtype, text_encoder_projection_dim=width
        )
        return {**super()._extras(request), "time_ids": time_ids.to(self._device)}

    def _run(self, network: Any, tokens: torch.Tensor, mask: torch.Tensor, skipped: int) -> Encoded:
        del mask  # Its pipeline uses none.
        found = network(tokens, output_hidden_states=True)
        pooled = found[0] if found[0].ndim == 2 else None  # noqa: PLR2004 - a vector for each text
        return found.hidden_states[-2 - skipped], pooled

    def _negative(
        self, text: str, reading: Reading, encode: Encode, prompt: TextEmbedding
    ) -> TextEmbedding:
        # The base model was trained with zeros for "no negative prompt", which its pipeline
        # does for None, not for an empty text.
        zeros = self.pipeline.config.get("force_zeros_for_empty_prompt", False)
        if text or not zeros:
            return super()._negative(text, reading, encode, prompt)
        pooled = torch.zeros_like(prompt.pooled) if prompt.pooled is not None else None
        return TextEmbedding(states=torch.zeros_like(prompt.states), pooled=pooled)

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        spread = self._spread(latents)
        if spread is None:
            return super()._scaled(latents)
        normalised: torch.Tensor = (latents - spread[0]) * self.decoder.config.scaling_factor
        return normalised / spread[1]

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        spread = self._spread(latents)
        if spread is None:
            return super()._unscaled(latents)
        denormalised: torch.Tensor = latents * spread[1] / self.decoder.config.scaling_factor
        return denormalised + spread[0]

    def _spread(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return mean and standard deviation of the VAE's latents; None where it names none."""
        config = self.decoder.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return None
        means, stds = (torch.tensor(each).view(1, -1, 1, 1).to(latents) for each in (mean, std))
        return means, stds


def _of_one_length(texts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return texts ``[1, tokens, width]`` as one tensor, and 1 for each token that is there.

    Attention then gives the padding no weight, so that what a row gets does not change. Texts of
    one length need no mask: a GPU has faster kernels without.
    """
    lengths = [each.shape[1] for each in texts]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.cat(list(texts)), None
    padded = [torch.nn.functional.pad(each, (0, 0, 0, longest - each.shape[1])) for each in texts]
    places = torch.arange(longest, device=texts[0].device)
    mask = places < torch.tensor(lengths, device=texts[0].device)[:, None]
    return torch.cat(padded), mask.to(texts[0].dtype)


FAMILIES: Final[Mapping[str, type[UNetFamily]]] = {"sd": UNetFamily, "sdxl": XLFamily}
"""By the family that a model's layout names."""
