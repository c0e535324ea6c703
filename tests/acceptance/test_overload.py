"""More than the service can do, and images that nobody wants: short forms of both drills."""

import pytest

from tests.support.drilled import drilled

pytestmark = pytest.mark.long


def test_ten_times_the_load_is_answered():
    """Who is let in has an image or 408 in time; who is refused is told when to come back."""
    words = ("--seconds", 8, "--capacity-seconds", 6, "--places", 12)
    code, said = drilled("tests.drills.overload", *words)
    assert code == 0, said
    everybody = next(line for line in said.splitlines() if line.startswith("| all"))
    came, refused, let_in = (int(cell) for cell in everybody.split("|")[2:5])
    assert came > refused > 0
    assert let_in > 0
    assert "Waiting and running when everybody had an answer: 0 and 0" in said


def test_the_engine_is_free_within_a_step():
    """Deleted, hung up on or out of time: an image of 50 steps gets one more at most."""
    code, said = drilled("tests.drills.cancel", "--jobs", 6)
    assert code == 0, said
