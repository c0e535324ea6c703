"""Texts to embeddings in chunks and with weights, by the text encoders of a pipeline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from service.core.prompt.words import divided
from service.diffusion.conditioning.chunks import Chunk, Chunks, Token, Vector, chunks
from service.diffusion.conditioning.encoding import Reading, TextEmbedding

Encoded = tuple[torch.Tensor, torch.Tensor | None]
"""Hidden states ``[1, tokens, width]`` and, of an encoder with a projection, ``[1, width]``."""

Run = Callable[[Any, torch.Tensor, torch.Tensor, int], Encoded]
"""Returns what an encoder, but for some of its last layers, makes of tokens and of the mask that
hides the padding."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A text encoder with its tokenizer."""

    name: str
    """The pipeline's name for it."""
    words: Any
    """The tokenizer."""
    network: Any

    def chunks(self, text: str, reading: Reading) -> Chunks:
        """Return the chunks in which this encoder reads a text."""
        comma = self._tokens(",")
        return chunks(
            text,
            reading,
            tokenize=partial(self._tokens, reading=reading),
            size=self.words.model_max_length - len(self._marks),
            comma=comma[0] if len(comma) == 1 and isinstance(comma[0], int) else None,
        )

    def embedding(self, chunk: Chunk, reading: Reading, device: torch.device, run: Run) -> Encoded:
        """Return what the network makes of one chunk between its marks, with its weights."""
        begin, end = self._marks[0], self._marks[-1]
        numbers = self._numbers(reading)
        ids = [each if isinstance(each, int) else numbers[each] for each in chunk.tokens]
        padded = self.words.pad(
            {"input_ids": [[begin, *ids, end]]},
            padding="max_length",
            max_length=self.words.model_max_length,
            return_tensors="pt",
        )
        vectors = {each.name: each.vectors[self.name] for each in reading.words}
        places = {
            place: vectors[each.word][each.number]
            for place, each in enumerate(chunk.tokens, 1)
            if isinstance(each, Vector)
        }
        tokens, mask = padded.input_ids.to(device), padded.attention_mask.to(device)
        with reading_vectors(self.network, places) if places else nullcontext():
            states, pooled = run(self.network, tokens, mask, reading.skipped)
        return (emphasised(states, chunk) if chunk.weighted else states), pooled

    def _numbers(self, reading: Reading) -> dict[Vector, int]:
        """Return a token id for each vector.

        diffusers adds them to the vocabulary, and where the end of a text is the highest id in it
        (older configurations) its pooled embedding is that of the last of them. AUTOMATIC1111
        has 0 in their places, and pools at the end.
        """
        every = [
            Vector(word=each.name, number=number)
            for each in reading.words
            for number in range(len(each.vectors[self.name]))
        ]
        first = len(self.words)
        return {each: 0 if reading.weighted else first + n for n, each in enumerate(every)}

    @property
    def _marks(self) -> Sequence[int]:
        marks: Sequence[int] = self.words("").input_ids
        return marks

    def _tokens(self, text: str, reading: Reading | None = None) -> Sequence[Token]:
        if reading is None or not reading.words:
            tokens: Sequence[int] = self.words(text, add_special_tokens=False).input_ids
            return tokens
        counts = {each.name: len(each.vectors[self.name]) for each in reading.words}
        found: list[Token] = []
        for part, name in divided(text, counts, bare=reading.weighted):
            found += self._tokens(part)
            found += [Vector(word=name, number=n) for n in range(counts[name])] if name else []
        return found


@contextmanager
def reading_vectors(network: Any, places: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Let a network read vectors in the places of tokens; nothing in it changes."""
    layer = network.get_input_embeddings()
    last = layer.num_embeddings - 1

    def before(_layer: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0].clamp(max=last),)

    def after(_layer: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        replaced = output.clone()
        for place, vector in places.items():
            replaced[:, place] = vector.to(replaced)
        return replaced

    handles = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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


def count_tokens(text: str, reading: Reading, encoders: Sequence[Encoder]) -> tuple[int, int]:
    """Return the tokens of a text, and those of them that no chunk has room for."""
    found = [each.chunks(text, reading) for each in encoders]
    return max(each.tokens for each in found), max(each.cut for each in found)


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
