"""Whole prompts: sub-prompts, adapters and faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.prompt.language import MOST_SUBPROMPTS, literal, parse
from service.core.spec import MOST_ADAPTERS, Adapter

ANYTHING = st.text(alphabet="ab AND:.<>lora=te()[]|\\12-", max_size=60) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat ", 1.0), (" a dog", 1.0)]),
        ("a cat :0.5 AND a dog : -1.5 ", [("a cat ", 0.5), (" a dog ", -1.5)]),
        ("a AND b:", [("a ", 1.0), (" b:", 1.0)]),
        (r"a AND b\:2", [("a ", 1.0), (r" b\:2", 1.0)]),
        ("a SANDY day", [("a SANDY day", 1.0)]),
        ("a day at 16:9", [("a day at 16:9", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
    ],
)
def test_sub_prompts(text: str, expected: list[tuple[str, float]]) -> None:
    """AND divides a prompt; the number at the end of a part is its weight."""
    found = parse(text)

    assert list(zip(found.by_step(1)[0], found.weights, strict=True)) == expected
    assert not found.faults


def test_a_negative_prompt_has_one_part() -> None:
    """There AND is a word, as in AUTOMATIC1111."""
    assert parse("a AND b:2", negative=True).by_step(1) == [("a AND b:2",)]


def test_a_plain_prompt() -> None:
    """Nothing in it has a meaning."""
    assert literal("[a|b] AND <lora:x:1>").by_step(2) == [("[a|b] AND <lora:x:1>",)] * 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ink", Adapter(name="ink", text_weight=1)),
        ("ink:0.8", Adapter(name="ink", weight=0.8, text_weight=0.8)),
        ("ink:0.5:0.8", Adapter(name="ink", weight=0.8, text_weight=0.5)),
        ("ink:te=0.5:unet=-1", Adapter(name="ink", weight=-1, text_weight=0.5)),
        ("ink:unet=0.7", Adapter(name="ink", weight=0.7, text_weight=1.0)),
    ],
)
def test_adapters(words: str, expected: Adapter) -> None:
    """A tag names an adapter with one weight or two, and leaves the text."""
    found = parse(f"a<lora:{words}> cat")

    assert found.adapters == (expected,)
    assert found.by_step(1)[0] == ("a cat",)
    assert not found.faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a <lora:ink:x>", "<lora:ink:x> must be"),
        ("a <lora::1>", "<lora::1> must be"),
        ("a <lora:ink:1:2:3>", "must be"),
        ("a <hypernet:ink:1>", "must not name hypernetworks"),
        (" AND ".join("a" * (MOST_SUBPROMPTS + 1)), "at most 8 parts"),
        ("a AND b:10.5", "not 10.5"),
        ("(a:11)", "not 11"),
    ],
)
def test_faults(text: str, fault: str) -> None:
    """A prompt that cannot be drawn as it says is at fault."""
    (found,) = parse(text).faults

    assert fault in found


def test_too_many_texts() -> None:
    """Each has to be encoded before the first step; those that repeat count once."""
    turns = "[a|b][a|b|c][a|b|c|d|e|f|g]"  # 42 texts.

    assert parse(turns).faults_in(50) == ["must change between at most 32 texts, not 42"]
    assert not parse(turns).faults_in(32)
    assert not parse("[a|b] AND c").faults_in(50)
    assert parse(turns).faults_in(30, more=30) == parse(turns).faults_in(60)


def test_a_second_pass_counts_on() -> None:
    """Parts of the steps are over after the first pass; whole numbers go on into the second."""
    found = parse("[a:b:0.5] [c:d:5] [e|f]")

    assert [texts for (texts,) in found.by_step(4)] == ["a c e", "a c f", "b c e", "b c f"]
    assert [texts for (texts,) in found.by_step(3, after=4)] == ["b c e", "b d f", "b d e"]


def test_adapters_next_to_those_of_a_request() -> None:
    """A request may repeat what its prompt says, as the metadata of an answer do."""
    ink, snow = (
        Adapter(name="ink", weight=0.8, text_weight=0.8),
        Adapter(name="snow", text_weight=1),
    )
    found = parse("a <lora:ink:0.8> <lora:ink:0.8> cat")

    assert found.adapters_next_to([snow]) == [snow, ink]
    assert found.adapters_next_to([ink]) == [ink]
    assert not found.faults_next_to([ink, snow])
    assert found.faults_next_to([Adapter(name="ink", text_weight=0.8)]) == [
        "must give the adapter ink one weight, in all tags and in adapters"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "<lora:ink:1> <lora:ink:0.5>",
            "must give the adapter ink one weight, in all tags and in adapters",
        ),
        ("<lora:ink:10.5>", "must have weights between -10 and 10 in tags"),
        ("<lora:ink:-11:1>", "must have weights between -10 and 10 in tags"),
        (
            "".join(f"<lora:ink{i}:1>" for i in range(MOST_ADAPTERS + 1)),
            "must not name more than 8 adapters",
        ),
    ],
)
def test_faults_of_adapters(text: str, fault: str) -> None:
    """Tags have the limits that the field of the request has."""
    assert parse(text).faults_next_to([]) == [fault]


def test_adapters_of_a_negative_prompt() -> None:
    """They belong into the prompt."""
    found = parse("a <lora:ink:1>", negative=True)

    assert found.faults == ("must not name adapters: move <lora:ink:1> to the prompt",)
    assert not found.adapters


@given(ANYTHING, st.booleans())
def test_nothing_raises(text: str, negative: bool) -> None:
    """Whatever is written has as many texts as weights in every step."""
    found = parse(text, negative=negative)

    assert [len(each) for each in found.by_step(3)] == [len(found.weights)] * 3
