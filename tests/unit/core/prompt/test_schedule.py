"""Schedules: which text counts in which step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.prompt.schedule import at, parse

SYNTAX = st.text(alphabet="ab ()[]:|\\.0123456789-", max_size=60)
WORDS = st.text(alphabet="abc (xyz)", max_size=6).map(
    lambda word: word.replace("(", "").replace(")", "")
)


def texts(prompt: str, steps: int = 10) -> list[str]:
    """Return the text of each step."""
    template = parse(prompt)
    return [at(template, step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("prompt", "first", "steps", "second"),
    [
        ("a [b:3]", "a ", 3, "a b"),
        ("a [b: 3 ]", "a ", 3, "a b"),
        ("a [b:c:0.5] d", "a b d", 5, "a c d"),
        ("[b:c:.25]", "b", 2, "c"),
        ("[b::3]", "b", 3, ""),
        ("[b:c:0]", "c", 10, ""),
        ("[b:c:-2]", "c", 10, ""),
        ("[b:c:99]", "b", 10, ""),
        ("a [[[b]]:2]", "a ", 2, "a [[b]]"),
        ("[(a:2):3]", "", 3, "(a:2)"),
        ("((a][:b:c [d:3]", "((a][:b:c ", 3, "((a][:b:c d"),
        ("[a (b:c:4]", "a (b", 4, "c"),
        ("a [b", "a [b", 10, ""),
        ("a [b] c", "a [b] c", 10, ""),
        ("[a:b:c:0.5]", "[a:b:c:0.5]", 10, ""),
        ("[a:b]", "[a:b]", 10, ""),
        (r"\[a:b:3\]", r"\[a:b:3\]", 10, ""),
        (r"[a\:b:c:3]", r"a\:b", 3, "c"),
        ("(a:1.3)", "(a:1.3)", 10, ""),
    ],
)
def test_switches(prompt: str, first: str, steps: int, second: str) -> None:
    """A text counts for so many steps, then another; what is no schedule stays as it is."""
    assert texts(prompt) == [first] * steps + [second] * (10 - steps)


def test_turns() -> None:
    """Texts between bars take turns, and one of them may be empty."""
    assert texts("[a|b] x", 5) == ["a x", "b x", "a x", "b x", "a x"]
    assert texts("[a|(b:1.1)|]", 4) == ["a", "(b:1.1)", "", "a"]


def test_nested() -> None:
    """Schedules stand in each other."""
    assert texts("a[b:[c:d:2]:1]e", 3) == ["abe", "ace", "ade"]
    assert texts("[[a|b]:c:0.5]", 6) == ["a", "b", "a", "c", "c", "c"]


@given(SYNTAX, st.integers(1, 12))
def test_nothing_raises(prompt: str, steps: int) -> None:
    """Whatever is written has a text for every step, made of what was written."""
    for text in texts(prompt, steps):
        assert len(text) <= len(prompt)


@given(SYNTAX.map(lambda text: text.replace(":", "").replace("|", "")))
def test_text_without_a_schedule_stays(prompt: str) -> None:
    """Without colons and bars a text is the same in every step."""
    assert set(texts(prompt)) == {prompt}


@given(WORDS, WORDS, st.integers(1, 12), st.integers(1, 12))
def test_round_trip(before: str, after: str, last: int, steps: int) -> None:
    """A switch that is written is read as it was meant."""
    expected = [before] * min(last, steps) + [after] * max(steps - last, 0)

    assert texts(f"[{before}:{after}:{last}]", steps) == expected


@pytest.mark.parametrize("sign", ["[", "(", "]", "[a:", "[a|", "[[a:b:3]:", "(]"])
def test_deep_nesting(sign: str) -> None:
    """The longest prompt of nothing but brackets is read like any other."""
    prompt = sign * (10_000 // len(sign))

    assert len(texts(prompt, 1)[0]) <= len(prompt)


def test_deeply_nested_switches() -> None:
    """Schedules may be nested deeper than Python calls itself."""
    assert texts("[" * 2000 + "a" + ":0]" * 2000, 1) == ["a"]
