"""One hostile client does not take the service from the others: a short form of the drill."""

import json

import pytest

from tests.support.drilled import drilled

pytestmark = pytest.mark.long

LEAST_HELD = 20
"""Connections that each flood gets at least, whatever the service lets one address have."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return what a short drill with all attacks saw, slow machines' missed goals aside."""
    report = tmp_path_factory.mktemp("hostile") / "report.json"
    words = ("--seconds", 14, "--window", 7, "--report", report)
    _, said = drilled("tests.drills.hostile", *words)
    assert report.exists(), said
    (only,) = json.loads(report.read_text(encoding="utf-8"))
    return only


def test_everybody_else_is_answered(seen):
    """Images come, and so do the answers to probes on new connections."""
    for side in (seen["attack"], seen["control"]):
        assert side["images"] > 20
        assert side["probes"] > 100
        assert (side["missing_images"], side["missing_probes"]) == (0, 0), side["refused"]


def test_no_accepted_job_is_lost(seen):
    """Neither the other key's nor the attacker's."""
    assert seen["taken"] > 30
    assert seen["lost"] == []


def test_memory_comes_back(seen):
    """Within a minute after the attack."""
    memory = seen["memory"]
    assert memory["most"] >= memory["before"]
    assert memory["back"] is not None, memory


def test_the_attacks_were_carried_out(seen):
    """A drill whose attacks do not reach the service shows nothing."""
    tallies = seen["tallies"]
    assert min(tallies[name]["202"] for name in ("names", "hosts")) > 10
    assert tallies["keys"]["401"] > 0
    assert max(tallies[name]["most open"] for name in ("unread", "bodies")) > LEAST_HELD
    assert tallies["watchers"]["opened"] > 0
