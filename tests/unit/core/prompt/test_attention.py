"""Emphasis: weights multiply, no text is lost, nothing raises."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.prompt.attention import LARGEST, Piece, sections, weights_beyond

SYNTAX = st.text(alphabet="ab ()[]:.,\\|0123456789-+ANDBREK\n", max_size=60)
WORDS = st.text(alphabet="abc xyz", min_size=1, max_size=6)


def pieces(text: str) -> list[list[tuple[str, float]]]:
    """Return sections as plain values."""
    return [[(each.text, each.weight) for each in section] for section in sections(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (cat) b", [("a ", 1.0), ("cat", 1.1), (" b", 1.0)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat : .5 )", [("cat ", 0.5)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("((cat:1.3) dog)", [("cat", 1.3 * 1.1), (" dog", 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("(open", [("open", 1.1)]),
        ("[open", [("open", 1 / 1.1)]),
        ("closed)]", [("closed)]", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)]),
        (r"\(a\) \[b\] \\ \:", [(r"(a) [b] \ :", 1.0)]),
        ("a: 1.3)", [("a: 1.3)", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("16:9", [("16:9", 1.0)]),
        ("end\\", [("end", 1.0)]),
    ],
)
def test_emphasis(text: str, expected: list[tuple[str, float]]) -> None:
    """Brackets give weights; what is no bracket, or an escaped one, is text."""
    (found,) = pieces(text)

    assert [each for each, _ in found] == [each for each, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def test_break() -> None:
    """BREAK divides the text wherever it stands as a word, in brackets, too."""
    assert pieces("a BREAK (b BREAK c:1.2) BREAK") == [
        [("a", 1.0)],
        [("b", 1.2)],
        [("c", 1.2)],
        [],
    ]
    assert pieces("BREAKFAST") == [[("BREAKFAST", 1.0)]]


def test_weights_have_a_limit() -> None:
    """Many brackets reach the limit and not infinity; a larger number is found by its author."""
    (found,) = pieces("(" * 9000 + "a")
    assert found == [("a", LARGEST)]
    assert weights_beyond("(a:10.5) (b:3) (c:-11) d:99") == ["10.5", "-11"]
    assert weights_beyond(r"(at 10\:30)") == []


@given(SYNTAX)
def test_nothing_raises(text: str) -> None:
    """Whatever is written has pieces with finite weights, and no piece is empty."""
    for section in sections(text):
        assert all(piece.text and math.isfinite(piece.weight) for piece in section)
        assert all(a.weight != b.weight for a, b in pairwise(section))


@given(SYNTAX.map(lambda text: "".join(c for c in text if c not in "\\:")))
def test_no_letter_is_lost(text: str) -> None:
    """All but brackets, BREAK and the space around it comes out again, in order."""
    found = "".join(piece.text for section in sections(text) for piece in section)

    assert _letters(found) == _letters(text.replace("BREAK", "")) or "BREAK" in text


def _letters(text: str) -> str:
    return "".join(c for c in text if c not in "()[] \n")


@st.composite
def written(draw: st.DrawFn, depth: int = 3) -> tuple[str, list[tuple[str, float]]]:
    """Return a text in the syntax, and the pieces that it was written from."""
    text, expected = "", []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["word", "round", "square", "number"])) if depth else "word"
        if kind == "word":
            word = draw(WORDS)
            inner, parts, factor = word, [(word, 1.0)], 1.0
        else:
            inner, parts = draw(written(depth=depth - 1))
            factor = {"round": 1.1, "square": 1 / 1.1}.get(kind, draw(st.sampled_from([0.5, 1.5])))
        frame = {"round": "({})", "square": "[{}]", "number": f"({{}}:{factor})", "word": "{}"}
        text += frame[kind].format(inner)
        expected += [(each, weight * factor) for each, weight in parts]
    return text, expected


@given(written())
def test_round_trip(case: tuple[str, list[tuple[str, float]]]) -> None:
    """What was written from pieces is read as these pieces, with the product of the weights."""
    text, expected = case
    letters = [(letter, min(weight, LARGEST)) for word, weight in expected for letter in word]

    found = [
        (letter, piece.weight)
        for (section,) in [sections(text)]
        for piece in section
        for letter in piece.text
    ]

    assert [each for each, _ in found] == [each for each, _ in letters]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in letters])


def test_pieces_are_values() -> None:
    """Two readings of one text are equal, so that embeddings can be kept by them."""
    assert sections("(a) b") == ((Piece(text="a", weight=1.1), Piece(text=" b")),)
