"""Fields that take a value as it is."""

import pytest
from marshmallow import ValidationError

from service.http.schema.fields import REPEATED, Choice, RealNumber, Text, WholeNumber

WIDTH = WholeNumber(low=256, high=768, multiple=64, example=512)
STEPS = WholeNumber(low=1, high=50, example=20)
SCALE = RealNumber(low=0, high=30, example=7.5)
PROMPT = Text(high=10, blank=False, example="a boat")
SAMPLER = Choice(choices=("ddim", "euler"))


@pytest.mark.parametrize("value", ["20", True, False, 20.5, float("nan"), float("inf"), [20], {}])
def test_a_whole_number_is_never_made_from_something_else(value):
    """Text, booleans, fractions and containers are no whole numbers."""
    with pytest.raises(ValidationError) as caught:
        STEPS.deserialize(value)
    assert caught.value.messages == ["must be a whole number between 1 and 50, e.g. 20"]


def test_a_float_without_a_fraction_is_a_whole_number():
    """JSON has one kind of number, and JSON Schema calls 20.0 an integer."""
    value = STEPS.deserialize(20.0)
    assert (value, type(value)) == (20, int)


@pytest.mark.parametrize("value", [0, 51, -1, 10**30, 1e300])
def test_a_whole_number_outside_its_limits_is_refused(value):
    """Both limits belong to the range, and nothing beyond them."""
    with pytest.raises(ValidationError):
        STEPS.deserialize(value)


def test_the_limits_themselves_are_allowed():
    """1 and 50 steps can be asked for."""
    assert [STEPS.deserialize(1), STEPS.deserialize(50)] == [1, 50]


@pytest.mark.parametrize("value", [500, 255, 832, 320.5])
def test_a_size_that_is_no_multiple_gets_the_cure(value):
    """The message names the limit and a value that works, once."""
    with pytest.raises(ValidationError) as caught:
        WIDTH.deserialize(value)
    assert caught.value.messages == ["must be a multiple of 64 between 256 and 768, e.g. 512"]


@pytest.mark.parametrize("value", ["7.5", True, float("nan"), float("inf"), -0.1, 30.5, 10**400])
def test_a_number_must_be_finite_and_within_its_limits(value):
    """NaN, Infinity and what no float can hold are refused like any wrong value."""
    with pytest.raises(ValidationError) as caught:
        SCALE.deserialize(value)
    assert caught.value.messages == ["must be a number between 0 and 30, e.g. 7.5"]


@pytest.mark.parametrize("kind", [WholeNumber, RealNumber])
@pytest.mark.parametrize(("example", "shown"), [(2, 1), (-1, 0), (1, 1)])
def test_an_example_is_a_value_that_works(kind, example, shown):
    """The limits of a model may leave out the usual example: an encoder of one layer skips none."""
    field = kind(low=0, high=1, example=example)
    assert field.metadata["examples"] == [shown]
    with pytest.raises(ValidationError) as caught:
        field.deserialize(5)
    assert caught.value.messages[0].endswith(f" number between 0 and 1, e.g. {shown}")


def test_an_integer_is_a_number():
    """A guidance scale of 7 is 7.0."""
    assert SCALE.deserialize(7) == 7.0


@pytest.mark.parametrize("value", ["", " ", "\n\t\u2003", 5, None, ["a boat"]])
def test_a_text_must_say_something(value):
    """Empty, blank and other kinds of values are no prompt."""
    with pytest.raises(ValidationError) as caught:
        PROMPT.deserialize(value)
    assert caught.value.messages == ['must be text of 1 to 10 characters, e.g. "a boat"']


def test_a_text_that_is_too_long_says_by_how_much():
    """The limit counts characters, not bytes."""
    assert PROMPT.deserialize("ä" * 10) == "ä" * 10
    with pytest.raises(ValidationError) as caught:
        PROMPT.deserialize("ä" * 13)
    assert caught.value.messages == ["must have at most 10 characters; shorten it by 3"]


@pytest.mark.parametrize("text", ["ab\0c", "ab\ud800c", "ab\udfffc"])  # noqa: PT014 - they differ
def test_characters_that_break_logs_and_png_chunks_are_refused(text):
    """NUL and half a surrogate pair are found and their place is named."""
    with pytest.raises(ValidationError) as caught:
        PROMPT.deserialize(text)
    assert "at position 2" in caught.value.messages[0]


def test_an_emoji_is_one_character_like_any_other():
    """A full surrogate pair in JSON is one good character."""
    assert PROMPT.deserialize("\U0001f6a2") == "\U0001f6a2"


@pytest.mark.parametrize("value", ["Euler", "", 1, None, []])
def test_a_choice_names_what_there_is(value):
    """Only the exact names are taken."""
    with pytest.raises(ValidationError) as caught:
        SAMPLER.deserialize(value)
    assert caught.value.messages == ["must be one of ddim, euler"]


def test_null_takes_the_default_where_there_is_one():
    """Else it is a wrong value."""
    assert WholeNumber(low=1, high=50, example=20, load_default=7).deserialize(None) == 7
    for field in (STEPS, SCALE, PROMPT, SAMPLER):
        with pytest.raises(ValidationError, match="must be"):
            field.deserialize(None)


@pytest.mark.parametrize("field", [WIDTH, SCALE, PROMPT, SAMPLER])
def test_a_value_that_is_given_twice_is_refused(field):
    """It is not for us to guess which of the two counts."""
    with pytest.raises(ValidationError) as caught:
        field.deserialize(REPEATED)
    assert caught.value.messages == ["is given more than once; keep one"]
