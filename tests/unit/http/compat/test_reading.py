"""Bodies of clients that write numbers as texts, and fields that nobody knows."""

import pytest

from service.core.spec import FIELDS
from service.errors import ValidationFailed
from service.http.compat.reading import Flag, LooseSchema, Passed, ignored, load, number
from service.http.schema.fields import REPEATED, WholeNumber

STEPS = next(each for each in FIELDS if each.name == "steps")
SCHEMA = LooseSchema.from_dict(
    {
        "count": WholeNumber(low=1, high=10, example=1, load_default=1),
        "stream": Flag(load_default=False),
        "steps": Passed(STEPS),
    }
)()


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("30", 30),
        (" 7.5 ", 7.5),
        ("-1", -1),
        ("1e2", 100.0),
        (30.0, 30.0),
        ("1_0", "1_0"),
        ("٣", "٣"),
        ("thirty", "thirty"),
        ("9" * 33, "9" * 33),
        (None, None),
        (True, True),
    ],
)
def test_a_text_that_is_a_number_is_read_as_one(value, read):
    """Everything else stays, and is refused where it is checked."""
    assert number(value) == read
    assert type(number(value)) is type(read)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, (1, False, None)),
        ({"count": None, "stream": None, "steps": None}, (1, False, None)),
        ({"count": "3", "stream": "true", "steps": "20"}, (3, True, "20")),
        ({"count": 3.0, "stream": 0, "unknown": {"deep": []}}, (3, False, None)),
    ],
)
def test_fields_are_read_generously(body, found):
    """Null is left out, and what is unknown does not matter."""
    read = load(SCHEMA, body)
    assert (read["count"], read["stream"], read["steps"]) == found


def test_what_is_wrong_is_named():
    """All of it at once, with what would be right."""
    with pytest.raises(ValidationFailed) as caught:
        load(SCHEMA, {"count": 11, "stream": "perhaps", "steps": REPEATED})
    assert caught.value.errors == {
        "count": ["must be a whole number between 1 and 10, e.g. 1"],
        "stream": ["must be true or false"],
        "steps": ["is given more than once; keep one"],
    }


def test_unknown_fields_can_be_told():
    """An API says which of them it ignored."""
    assert ignored(SCHEMA, {"count": 1, "cuont": 2}) == ["cuont"]
