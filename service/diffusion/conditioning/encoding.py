"""What guides the denoising of an image, and the cache of encoded texts."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import torch

CACHED_TOKENS = 64 * 77
"""Tokens of embeddings that are kept: 77 take 0.1 MB for SD 1.5 in fp16, 0.3 MB for SDXL."""


@dataclass(frozen=True, kw_only=True)
class TextEmbedding:
    """One text: hidden states ``[1, tokens, width]`` and, for SDXL, the pooled ``[1, width]``."""

    states: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many tokens it has, marks and padding included."""
        return self.states.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Word:
    """A name in texts that stands for vectors of its own (textual inversion)."""

    name: str
    vectors: Mapping[str, torch.Tensor]
    """By text encoder ``[count, width]``."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a text is read."""

    weighted: bool = False
    """Whether brackets in it give weights, and BREAK divides it."""
    chunked: bool = False
    """Whether it is read in chunks where it is too long to be read at once."""
    skipped: int = 0
    """Last layers of the text encoders that are left out."""
    words: tuple[Word, ...] = ()
    """Names in the text that stand for vectors."""


AS_DIFFUSERS: Final = Reading()


class Encode(Protocol):
    """Returns the embedding of a text."""

    def __call__(self, text: str, reading: Reading, /) -> TextEmbedding: ...  # noqa: D102 - the class says it


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Inputs of the denoiser besides latents and timestep, one text per row of its batch.

    ``texts`` holds the negative prompt first when there is classifier-free guidance,
    and the prompt alone when there is none; a prompt with AND is several texts.
    """

    texts: tuple[TextEmbedding, ...]
    weights: tuple[float, ...] = (1.0,)
    """How much each text of the prompt counts."""
    by_step: tuple[tuple[TextEmbedding, ...], ...] = ()
    """The texts of each step, where they change; else empty."""
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further inputs ``[1, width]`` by name; all images of a model have the same ones."""
    tokens: int = 0
    """Tokens of the prompt."""
    tokens_cut: int = 0
    """Tokens of the prompt that the text encoder cannot read."""

    def at(self, step: int) -> "Conditioning":
        """Return what guides a step; the first one is 0."""
        return replace(self, texts=self.by_step[step]) if self.by_step else self


class CachedEncode(Protocol):
    """Returns the embedding of a text; ``state`` tells states of the text encoders apart."""

    def __call__(  # noqa: D102 - the class says it
        self, text: str, reading: Reading = AS_DIFFUSERS, state: Hashable = (), /
    ) -> TextEmbedding: ...


def cached(encode: Encode) -> CachedEncode:
    """Return ``encode`` with a cache; the text that was unused for longest leaves first."""
    kept: OrderedDict[tuple[str, Reading, Hashable], TextEmbedding] = OrderedDict()

    def encoded(
        text: str, reading: Reading = AS_DIFFUSERS, state: Hashable = (), /
    ) -> TextEmbedding:
        key = text, reading, state
        found = kept.pop(key, None) or encode(text, reading)
        kept[key] = found
        while len(kept) > 1 and sum(each.tokens for each in kept.values()) > CACHED_TOKENS:
            kept.popitem(last=False)
        return found

    return encoded
