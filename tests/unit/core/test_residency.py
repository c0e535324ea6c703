"""Which models give way."""

import pytest

from service.core.capacity import Resident, giving_way

HELD = {
    "dear": Resident(size=4, load_seconds=60, used=90),
    "cheap": Resident(size=4, load_seconds=5, used=90),
    "forgotten": Resident(size=6, load_seconds=60, used=10),
    "fresh": Resident(size=4, load_seconds=5, used=100),
}
NOW = 100.0


@pytest.mark.parametrize(
    ("lack", "keep", "gone"),
    [
        (0, (), []),
        (-3, (), []),
        (1, (), ["cheap"]),
        (4, (), ["cheap"]),
        (9, (), ["cheap", "forgotten"]),
        (1, ("cheap",), ["forgotten"]),
        (12, ("cheap",), ["forgotten", "fresh", "dear"]),
        (18, (), ["cheap", "forgotten", "fresh", "dear"]),
        (19, (), None),
        (15, ("cheap",), None),
    ],
)
def test_the_least_valuable_gives_way_first(lack, keep, gone):
    """Value is the seconds to load it by those that nobody used it; nothing goes for nothing."""
    assert giving_way(lack, HELD, keep=keep, now=NOW) == gone


def test_no_more_goes_than_has_to():
    """The small one stays where the large one that follows suffices."""
    held = {
        "small": Resident(size=1, load_seconds=1, used=0),
        "large": Resident(size=8, load_seconds=2, used=0),
    }
    assert giving_way(5, held, keep=(), now=NOW) == ["large"]
