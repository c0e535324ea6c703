"""Prompts to embeddings, by the pipeline's own text encoders."""

from collections import OrderedDict
from dataclasses import dataclass

import torch

from service.diffusion.generation import GenerationRequest
from service.diffusion.load import Model

CACHED_TEXTS = 64
"""Texts whose embeddings are kept: 0.1 MB each for SD 1.5 in fp16, 0.3 MB for SDXL."""


@dataclass(frozen=True, kw_only=True)
class TextEmbedding:
    """One text: hidden states ``[1, tokens, width]`` and, for SDXL, the pooled ``[1, width]``."""

    states: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What the UNet is told besides latents and timestep, one entry per UNet row.

    ``texts`` holds the negative prompt first when there is classifier-free guidance,
    and the prompt alone when there is none.
    """

    texts: tuple[TextEmbedding, ...]
    time_ids: torch.Tensor | None = None
    """SDXL's size conditioning, ``[1, 6]``."""
    timestep_cond: torch.Tensor | None = None
    """The guidance scale's embedding of distilled models, ``[1, time_cond_proj_dim]``."""
    tokens_cut: int = 0
    """Tokens of the prompt that the text encoder cannot read."""


class Encoder:
    """Text encoders of one model, with a small cache of repeated texts."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache: OrderedDict[str, TextEmbedding] = OrderedDict()

    def conditioning(self, request: GenerationRequest) -> Conditioning:
        """Return what guides a request's pictures, as ``pipe(...)`` would build it."""
        pipeline, device = self._model.pipeline, self._model.device
        prompt = self._text(request.prompt)
        distilled = pipeline.unet.config.time_cond_proj_dim
        texts: tuple[TextEmbedding, ...] = (prompt,)
        timestep_cond = None
        if distilled is not None:
            # Guidance distillation, arXiv:2210.03142: the scale is an input, not a second row.
            scale = torch.tensor(request.guidance_scale - 1).repeat(1)
            timestep_cond = pipeline.get_guidance_scale_embedding(scale, embedding_dim=distilled)
            timestep_cond = timestep_cond.to(device=device, dtype=prompt.states.dtype)
        elif request.guidance_scale > 1:
            texts = (self._negative(request.negative_prompt, prompt), prompt)
        return Conditioning(
            texts=texts,
            time_ids=self._time_ids(request, prompt),
            timestep_cond=timestep_cond,
            tokens_cut=self._tokens_cut(request.prompt),
        )

    def _tokens_cut(self, prompt: str) -> int:
        pipeline = self._model.pipeline
        tokenizers = [pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)]
        return max(
            (
                max(0, len(tokenizer(prompt).input_ids) - tokenizer.model_max_length)
                for tokenizer in tokenizers
                if tokenizer is not None
            ),
            default=0,
        )

    def _negative(self, text: str, prompt: TextEmbedding) -> TextEmbedding:
        # SDXL's base model was trained with zeros for "no negative prompt", which its
        # pipeline does for None, not for an empty text.
        zeros = self._model.pipeline.config.get("force_zeros_for_empty_prompt", False)
        if text or not zeros or prompt.pooled is None:
            return self._text(text)
        return TextEmbedding(
            states=torch.zeros_like(prompt.states), pooled=torch.zeros_like(prompt.pooled)
        )

    def _text(self, text: str) -> TextEmbedding:
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        pipeline, device = self._model.pipeline, self._model.device
        if self._model.info.family == "sdxl":
            states, _, pooled, _ = pipeline.encode_prompt(
                text, device=device, do_classifier_free_guidance=False
            )
            embedding = TextEmbedding(states=states, pooled=pooled)
        else:
            states, _ = pipeline.encode_prompt(
                text, device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            embedding = TextEmbedding(states=states)
        self._cache[text] = embedding
        if len(self._cache) > CACHED_TEXTS:
            self._cache.popitem(last=False)
        return embedding

    def _time_ids(self, request: GenerationRequest, prompt: TextEmbedding) -> torch.Tensor | None:
        if prompt.pooled is None:
            return None
        pipeline = self._model.pipeline
        size = (request.height, request.width)
        encoder = pipeline.text_encoder_2
        width = prompt.pooled.shape[-1] if encoder is None else encoder.config.projection_dim
        time_ids: torch.Tensor = pipeline._get_add_time_ids(  # noqa: SLF001 - the pipeline's own layout of the six numbers
            size, (0, 0), size, dtype=prompt.states.dtype, text_encoder_projection_dim=width
        )
        return time_ids.to(self._model.device)
