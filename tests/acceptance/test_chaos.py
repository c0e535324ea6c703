"""Nothing accepted is lost: a short form of the drill, with real kills of real processes."""

import pytest

from tests.support.drilled import drilled

pytestmark = pytest.mark.long


def cells(said: str) -> dict[str, str]:
    """Return the second column of all tables by the first one."""
    rows = [line.strip("| ").split("|") for line in said.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip() for row in rows}


def test_engines_and_services_are_killed_and_nothing_is_lost():
    """Every accepted order ends, once, whoever is killed meanwhile."""
    code, said = drilled(
        "tests.drills.chaos", "--seed", 3, "--jobs", 24, "--engine-kills", 3, "--service-kills", 2
    )
    assert code == 0, said
    found = cells(said)
    assert int(found["accepted"]) >= 24
    assert (found["+ lost"], found["all"]) == ("0", "5")
    assert int(found["started more than once"]) > 0


def test_one_of_two_engines_is_killed_and_nothing_is_lost():
    """The other one goes on, also while the whole service is killed."""
    fake = ("--engines", 2, "--module", "tests.support.fake_worker")
    kills = ("--engine-kills", 4, "--service-kills", 1)
    code, said = drilled("tests.drills.chaos", "--seed", 5, "--jobs", 24, *kills, *fake)
    assert code == 0, said
    assert (cells(said)["+ lost"], cells(said)["all"]) == ("0", "5")


def test_a_store_that_forgets_is_found_out():
    """The drill can fail: without the rows of unfinished jobs a kill loses them."""
    words = ("--module", "tests.support.jobs.forgetful_service")
    code, said = drilled(
        "tests.drills.chaos", "--jobs", 12, "--engine-kills", 0, "--service-kills", 1, *words
    )
    assert code == 1, said
    assert "FAILED: nothing is lost" in said
    assert "asked for, it is 404 not_found" in said
