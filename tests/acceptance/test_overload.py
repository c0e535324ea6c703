"""More than the service can do, and pictures that nobody wants: short forms of both drills."""

from tests.drills import drilled


def test_ten_times_the_load_is_answered():
    """Who is let in has a picture or 408 in time; who is refused is told when to come back."""
    words = ("--seconds", 8, "--capacity-seconds", 6, "--places", 12)
    code, said = drilled("scripts.overload", *words)
    assert code == 0, said
    everybody = next(line for line in said.splitlines() if line.startswith("| all"))
    came, refused, let_in = (int(cell) for cell in everybody.split("|")[2:5])
    assert came > refused > 0
    assert let_in > 0
    assert "Waiting and running when everybody had an answer: 0 and 0" in said


def test_the_engine_is_free_within_a_step():
    """Deleted, hung up on or out of time: a picture of 50 steps gets one more at most."""
    code, said = drilled("scripts.cancel_figure", "--jobs", 6)
    assert code == 0, said
