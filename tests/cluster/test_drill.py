"""A service that is killed loses nothing that its cluster works on: a short form of the drill."""

import pytest

from tests.support.drilled import drilled

pytestmark = pytest.mark.long


def test_a_killed_service_takes_up_what_its_engines_went_on_with():
    """Every order gets its image, made once and billed once."""
    size = ("--nodes", 1, "--engines", 2, "--strikes", 1, "--jobs", 20)
    code, said = drilled("tests.drills.cluster", *size, "--scenes", "service SIGKILL")
    assert code == 0, said
    table = [line for line in said.splitlines() if line.startswith(("| Struck", "| service SIG"))]
    names, cells = ([cell.strip() for cell in line.split("|")] for line in table)
    row = dict(zip(names, cells, strict=True))
    columns = ("Orders", "Finished", "Failed", "Lost", "Billed", "Adopted")
    orders, finished, failed, lost, billed, adopted = (int(row[name]) for name in columns)
    assert orders >= 20
    assert (finished, failed, lost, billed) == (orders, 0, 0, orders)
    assert adopted > 0
