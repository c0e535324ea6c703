"""Large and hostile images, sent to a service in a process of its own."""

import json

import pytest

from tests.drills.uploads.__main__ import MOST_HOSTILE_MIB, MOST_MIB, measured
from tests.drills.uploads.files import hostile


def test_there_are_three_hundred_hostile_files():
    """Each with a name of its own, and the same ones each time."""
    names = [name for name, _ in hostile()]
    assert len({*names}) == len(names) >= 300


@pytest.mark.long
async def test_no_file_breaks_the_service():
    """Each is taken or refused by the name of its field; memory stays bounded.

    How fast /health answers meanwhile depends on the machine: the drill itself says that.
    """
    seen = await measured()
    assert not seen.wrong, json.dumps(seen.wrong[:5])
    assert sum(seen.answers.values()) >= 300
    assert {answer.split()[0] for answer in seen.answers} == {"202", "400"}
    assert seen.uploads_mib <= MOST_MIB
    assert seen.hostile_mib <= MOST_HOSTILE_MIB
