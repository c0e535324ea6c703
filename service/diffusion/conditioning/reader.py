"""Texts to embeddings in chunks and with weights, by the text encoders of a pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from service.diffusion.conditioning.chunks import Chunk, Chunks, chunks
from service.diffusion.conditioning.encoding import Reading, TextEmbedding

Encoded = tuple[torch.Tensor, torch.Tensor | None]
"""Hidden states ``[1, tokens, width]`` and, of an encoder with a projection, ``[1, width]``."""

Run = Callable[[Any, torch.Tensor, torch.Tensor, int], Encoded]
"""Returns what an encoder, but for some of its last layers, makes of tokens and of the mask that
hides the padding."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A text encoder with its tokenizer."""

    words: Any
    """The tokenizer."""
    network: Any

    def chunks(self, text: str, reading: Reading) -> Chunks:
        """Return the chunks in which this encoder reads a text."""
        comma = self._tokens(",")
        return chunks(
            text,
            reading,
            tokenize=self._tokens,
            size=self.words.model_max_length - len(self._marks),
            comma=comma[0] if len(comma) == 1 else None,
        )

    def embedding(self, chunk: Chunk, reading: Reading, device: torch.device, run: Run) -> Encoded:
        """Return what the network makes of one chunk between its marks, with its weights."""
        begin, end = self._marks[0], self._marks[-1]
        padded = self.words.pad(
            {"input_ids": [[begin, *chunk.tokens, end]]},
            padding="max_length",
            max_length=self.words.model_max_length,
            return_tensors="pt",
        )
        tokens, mask = padded.input_ids.to(device), padded.attention_mask.to(device)
        states, pooled = run(self.network, tokens, mask, reading.skipped)
        return (emphasised(states, chunk) if chunk.weighted else states), pooled

    @property
    def _marks(self) -> Sequence[int]:
        marks: Sequence[int] = self.words("").input_ids
        return marks

    def _tokens(self, text: str) -> Sequence[int]:
        tokens: Sequence[int] = self.words(text, add_special_tokens=False).input_ids
        return tokens


def read(
    text: str, reading: Reading, encoders: Sequence[Encoder], device: torch.device, run: Run
) -> TextEmbedding:
    """Return the embedding of a text: chunks one after another, encoders side by side.

    An encoder that needs fewer chunks than another one reads empty ones. The pooled embedding
    is that of the first chunk.
    """
    found = [each.chunks(text, reading).read for each in encoders]
    count = max(map(len, found))
    encoded = [
        [
            each.embedding(chunk, reading, device, run)
            for chunk in (*read, *_empty(count - len(read)))
        ]
        for each, read in zip(encoders, found, strict=True)
    ]
    wide = [torch.cat([states for states, _ in parts], dim=1) for parts in encoded]
    return TextEmbedding(states=torch.cat(wide, dim=-1), pooled=encoded[-1][0][1])


def tokens_cut(text: str, reading: Reading, encoders: Sequence[Encoder]) -> int:
    """Return the tokens of a text that no chunk has room for."""
    return max(each.chunks(text, reading).cut for each in encoders)


def _empty(count: int) -> tuple[Chunk, ...]:
    return (Chunk(),) * count


def emphasised(states: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    """Multiply the state of each token by its weight, then bring the mean back to what it was.

    AUTOMATIC1111's emphasis "Original": ``z' = z w``, ``z'' = z' mean(z) / mean(z')``, the
    means over all tokens and the whole width of the chunk, its marks and padding included.
    """
    weights = torch.ones(states.shape[1], dtype=torch.float32)
    weights[1 : 1 + len(chunk.weights)] = torch.tensor(chunk.weights)
    before = states.float()
    after = before * weights.to(states.device)[None, :, None]
    factor = before.mean() / after.mean()
    return (after * factor.nan_to_num(1.0, 1.0, 1.0)).to(states.dtype)
