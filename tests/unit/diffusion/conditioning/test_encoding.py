from collections.abc import Callable

import pytest
import torch

from service.diffusion.conditioning import encoding
from service.diffusion.conditioning.chunks import Chunk
from service.diffusion.conditioning.encoding import Reading
from service.diffusion.conditioning.reader import emphasised
from service.diffusion.load import Model


def test_repeated_texts_are_encoded_once(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings of recent texts are kept, the oldest unused one leaves first."""
    monkeypatch.setattr(encoding, "CACHED_TOKENS", 2 * 77)
    encode = encoding.cached(sd.family.encode)

    dog, cat = encode("a dog"), encode("a cat")
    assert (encode("a cat"), encode("a dog")) == (cat, dog)
    encode("a bird")

    assert encode("a dog") is dog
    assert encode("a cat") is not cat


def test_long_texts_take_the_room_of_several(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache has a limit in tokens; the latest text is kept however long it is."""
    monkeypatch.setattr(encoding, "CACHED_TOKENS", 2 * 77)
    encode, reading = encoding.cached(sd.family.encode), Reading(chunked=True)

    cat, long = encode("a cat"), encode("x " * 200, reading)

    assert encode("x " * 200, reading) is long
    assert encode("a cat") is not cat


def test_each_reading_of_a_text_is_kept(sd: Model) -> None:
    """Weights and chunks make other embeddings of the same text."""
    encode = encoding.cached(sd.family.encode)

    plain, weighted = encode("(a cat)"), encode("(a cat)", Reading(weighted=True))

    assert encode("(a cat)") is plain
    assert encode("(a cat)", Reading(weighted=True)) is weighted
    assert weighted is not plain


@pytest.mark.parametrize("kind", ["sd", "sdxl", "odd_tokenizer"])
def test_a_short_text_has_one_embedding(model: Callable[[str], Model], kind: str) -> None:
    """Read in chunks, or in AUTOMATIC1111's syntax without any, it is bit for bit diffusers'."""
    family = model(kind).family
    plain = family.encode("two Words")

    for reading in (Reading(chunked=True), Reading(weighted=True, chunked=True)):
        found = family.encode("two Words", reading)
        assert torch.equal(found.states, plain.states)
        assert (found.pooled is None) == (plain.pooled is None)
        if found.pooled is not None and plain.pooled is not None:
            assert torch.equal(found.pooled, plain.pooled)


def test_marks_are_the_tokenizers(model: Callable[[str], Model]) -> None:
    """A tokenizer with other marks, which reads 24 tokens, has chunks of 22."""
    family = model("odd_tokenizer").family

    assert family.encode("x " * 45, Reading(chunked=True)).tokens == 3 * 24


def test_a_text_with_no_mean_stays_finite() -> None:
    """States whose mean is exactly 0 cannot be brought back to it, and are left as they are."""
    chunk = Chunk(tokens=(1,), weights=(2.0,))

    assert torch.equal(emphasised(torch.zeros(1, 77, 4), chunk), torch.zeros(1, 77, 4))
