"""Models that take turns, with real loads and real kills: a short form of the drill."""

import pytest

from tests.support.drilled import drilled

pytestmark = pytest.mark.matrix


def test_clients_of_two_models_all_get_their_images_within_the_bound():
    """Under a budget of host memory, a limit of address space, and kills while a model loads."""
    code, said = drilled(
        "tests.drills.switches", "--seconds", 5, "--images", 3, "--limit-gb", 6, "--rounds", 1
    )
    assert code == 0, said
    rows = [
        line.strip("| ").split("|")
        for line in said.splitlines()
        if "clients" in line[:12] and line[0] == "|"
    ]
    assert len(rows) == 4
    for _, images, lost, *_ in rows:
        assert int(images) > 0
        assert int(lost) == 0
