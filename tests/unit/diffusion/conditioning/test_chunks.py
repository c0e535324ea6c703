"""Chunks of long texts: no token is lost, and words stay together where a comma allows it."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.diffusion.conditioning.chunks import (
    MOST_CHUNKS,
    NEAR,
    Chunks,
    Token,
    Vector,
    chunks,
    divided,
)
from service.diffusion.conditioning.encoding import Reading

COMMA = ord(",")
IN_CHUNKS = Reading(weighted=True, chunked=True)


def read(text: str, size: int = 5, reading: Reading = IN_CHUNKS) -> Chunks:
    """Return the chunks of a text in which each character is a token."""
    return chunks(text, reading, tokenize=lambda piece: [*map(ord, piece)], size=size, comma=COMMA)


def texts(found: Chunks) -> list[str]:
    """Return the text of each chunk."""
    return [
        "".join(chr(each) for each in chunk.tokens if isinstance(each, int)) for chunk in found.read
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("abcde", ["abcde"]),
        ("abcdefghijk", ["abcde", "fghij", "k"]),
        ("ab,cdef", ["ab,", "cdef"]),
        ("abcd,ef", ["abcd,", "ef"]),
        ("abcde,f", ["abcde", ",f"]),
        ("a BREAK b", ["a", "b"]),
        ("BREAK b", ["", "b"]),
        ("a BREAK", ["a"]),
        ("a BREAK BREAK b", ["a", "", "b"]),
        ("abcde BREAK b", ["abcde", "b"]),
    ],
)
def test_chunks(text: str, expected: list[str]) -> None:
    """A chunk ends where it is full, behind a near comma, or at BREAK."""
    found = read(text)

    assert texts(found) == expected
    assert found.cut == 0


def test_a_far_comma_does_not_count() -> None:
    """No more than so many tokens are moved for a comma."""
    near, far = "," + "a" * (NEAR - 1), "," + "a" * NEAR

    assert texts(read("b" * 10 + near + "c", 10 + NEAR)) == ["b" * 10 + ",", near[1:] + "c"]
    assert texts(read("b" * 9 + far + "c", 10 + NEAR)) == ["b" * 9 + far, "c"]


def test_weights_go_with_their_tokens() -> None:
    """Each token keeps its weight in whichever chunk it comes."""
    found = read("abc(defg:2)").read

    assert [chunk.weights for chunk in found] == [(1, 1, 1, 2, 2), (2, 2)]
    assert [chunk.weighted for chunk in found] == [True, True]
    assert not read("abc").read[0].weighted


def test_what_is_cut() -> None:
    """Without chunks the first one counts, and with them there is a limit, too."""
    cut = read("abcdefgh", reading=Reading(weighted=True))
    assert (texts(cut), cut.cut) == (["abcde"], 3)
    assert read("x BREAK " * 100 + "yy").cut == 100 - MOST_CHUNKS + 2


def vectors(count: int) -> list[tuple[Token, float]]:
    """Return the vectors of a word."""
    return [(Vector(word="x", number=number), 1.0) for number in range(count)]


def test_the_vectors_of_a_word_stay_in_one_chunk() -> None:
    """As AUTOMATIC1111 keeps them; more than fit into one are divided, and a cut divides any."""
    text: list[tuple[Token, float]] = [(1, 1.0), (2, 1.0), (3, 1.0)]

    found = divided([[*text, *vectors(3), *text]], 5, COMMA)
    cut = divided([[*text, *vectors(3)]], 5, None, whole=False)
    large = divided([vectors(7)], 5, COMMA)

    assert [len(each.tokens) for each in found] == [3, 5, 1]
    assert [len(each.tokens) for each in cut] == [5, 1]
    assert [len(each.tokens) for each in large] == [5, 2]


def test_a_text_that_is_cut_is_cut_where_it_is_full() -> None:
    """As diffusers does it; a comma counts where the rest is read, too."""
    cut = read("ab,cdef", reading=Reading())
    assert (texts(cut), cut.cut) == (["ab,cd"], 2)


def test_plain_text_has_no_syntax() -> None:
    """Read as it is, brackets are tokens like all others."""
    assert texts(read("(a:2)bcd", reading=Reading(chunked=True))) == ["(a:2)", "bcd"]


PARTS = st.lists(st.lists(st.tuples(st.integers(40, 50), st.floats(-2, 2)), max_size=40))


@given(PARTS, st.integers(1, 30))
def test_all_tokens_are_kept(parts: list[list[tuple[Token, float]]], size: int) -> None:
    """All tokens come out in order with their weights, in chunks of the size at most."""
    found = divided(parts, size, COMMA)

    pairs = [pair for chunk in found for pair in zip(chunk.tokens, chunk.weights, strict=True)]
    assert pairs == list(chain.from_iterable(parts))
    assert all(len(chunk.tokens) <= size for chunk in found)
    assert len(found) >= 1
