"""Places that owners get in turns."""

from service.system.fair_line import FairLine, Limits

WIDE = Limits(most=100, each=100, alike=100)


def taken(line: FairLine[str]) -> list[str]:
    """Take everything that may be taken."""
    found = []
    while (place := line.take()) is not None:
        found.append(place.item)
    return found


def filled(limits: Limits, *items: str) -> FairLine[str]:
    """Return a line of items named ``owner/group/...``."""
    line: FairLine[str] = FairLine(limits)
    for item in items:
        owner, group, _ = item.split("/")
        line.put(owner, group, item)
    return line


def test_owners_take_turns_and_so_do_their_groups():
    """Whoever came with more is not served more often; inside a group it is first come."""
    line = filled(WIDE, "a/x/1", "a/x/2", "a/y/1", "b/x/1", "a/y/2", "b/x/2")
    assert line.waiting == 6
    assert taken(line) == ["a/x/1", "b/x/1", "a/y/1", "b/x/2", "a/x/2", "a/y/2"]
    assert (line.waiting, line.held) == (0, 6)


def test_an_owner_and_each_of_its_groups_have_their_most():
    """What is over waits for a place of its own; others go past."""
    items = [f"a/{group}/{number}" for group in "xyz" for number in range(3)]
    line = filled(Limits(most=9, each=5, alike=2), *items)
    assert taken(line) == ["a/x/0", "a/y/0", "a/z/0", "a/x/1", "a/y/1"]
    line.put("b", "x", "b/x/0")
    assert taken(line) == ["b/x/0"]


def test_a_place_given_back_is_the_next_ones():
    """Of the same group, where others have their most."""
    line = filled(Limits(most=9, each=1, alike=1), "a/x/1", "a/x/2", "a/y/1")
    place = line.take()
    assert place is not None
    assert line.take() is None
    line.give_back(place)
    assert taken(line) == ["a/y/1"]


def test_an_owner_without_a_place_gets_one_beyond_the_most():
    """One only; and not more in all than are to spare."""
    items = [f"{owner}/x/{number}" for owner in "abcd" for number in range(3)]
    line = filled(Limits(most=2, each=2, alike=2, spare=1), *items)
    assert taken(line) == ["a/x/0", "b/x/0", "c/x/0"]
    assert line.held == 3


def test_what_waits_no_longer_leaves_no_trace():
    """Neither does an owner with nothing waiting and no place."""
    line = filled(WIDE, "a/x/1", "a/x/2", "b/x/1")
    line.discard("a", "a/x/1")
    line.discard("a", "a/x/1")
    line.discard("nobody", "a/x/1")
    line.discard("b", "b/x/1")
    place = line.take()
    assert place is not None
    assert place.item == "a/x/2"
    line.give_back(place)
    assert (line.waiting, line.held, line._owners) == (0, 0, {})


def test_a_group_moves_into_another():
    """Behind what waits there; places that are taken stay where they were."""
    line = filled(Limits(most=9, each=9, alike=1), "a/x/1", "a/x/2", "a/x/3", "a/y/1")
    first = line.take()
    line.regroup("a", "x", "y")
    line.regroup("a", "x", "y")
    line.regroup("nobody", "x", "y")
    assert first is not None
    assert taken(line) == ["a/y/1"]
    line.give_back(first)
    assert line.waiting_of("a") == 2
    assert taken(line) == []
