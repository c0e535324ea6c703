"""The clock that runs while an engine should say something."""

import asyncio

import pytest
from structlog.testing import capture_logs

from service.core.stage import Stage
from service.engine.heartbeat import Heartbeat
from service.engine.protocol import Generate
from service.engine.watchdog import ASLEEP_SECONDS, Watchdog

WAIT_SECONDS = 30.0


class Owner:
    """Has a watchdog, and notes when it barks."""

    def __init__(self, most: float) -> None:
        self.work: dict[str, Generate] = {}
        self.stalled: asyncio.Queue[float] = asyncio.Queue()
        self.watchdog = Watchdog(Heartbeat(most), self.work, self.stalled.put_nowait)

    async def bark(self) -> float:
        return await asyncio.wait_for(self.stalled.get(), WAIT_SECONDS)


@pytest.fixture
async def owner():
    """Return one whose engine may be silent for a tenth of a second."""
    made = Owner(0.1)
    yield made
    made.watchdog.rest()


async def test_silence_ends_with_a_bark(owner):
    """It first says in the log that half of the time is over."""
    with capture_logs() as logs:
        owner.watchdog.hear(Stage.LOAD)
        assert await owner.bark() >= 0.1
    assert [line["event"] for line in logs] == ["engine_silent"]


async def test_nothing_is_expected_at_rest(owner):
    """Neither before the first sign of life, nor after a rest."""
    assert (owner.watchdog.silence, owner.watchdog.late) == (0.0, False)
    owner.watchdog.hear(Stage.LOAD)
    owner.watchdog.rest()
    assert (owner.watchdog.silence, owner.watchdog.late) == (0.0, False)
    assert owner.watchdog._timer is None


async def test_fetching_may_take_as_long_as_it_takes(owner):
    """The silence is told; it is never too long."""
    owner.watchdog.hear(Stage.FETCH)
    owner.watchdog._heard -= 10_000
    assert owner.watchdog.silence >= 10_000
    assert not owner.watchdog.late
    assert owner.watchdog._timer is None


async def test_half_of_the_time_is_late():
    """An engine that is late is not ready for new work, and not dead yet."""
    owner = Owner(600)
    found = []
    owner.watchdog.hear(Stage.LOAD)
    for seconds in (299, 2):
        owner.watchdog._heard -= seconds
        found.append(owner.watchdog.late)
    owner.watchdog.hear(Stage.LOAD)
    assert [*found, owner.watchdog.late] == [False, True, False]
    owner.watchdog.rest()


@pytest.mark.parametrize("timer", ["_fall_silent", "_give_up"])
async def test_a_service_that_stood_still_itself_takes_nobody_for_dead(timer):
    """What it did not hear may lie in the pipe; the time begins anew."""
    owner = Owner(600)
    owner.watchdog.hear(Stage.LOAD)
    owner.watchdog._heard -= 5000
    with capture_logs() as logs:
        due = asyncio.get_running_loop().time() - ASLEEP_SECONDS
        getattr(owner.watchdog, timer)(due)
    assert [line["event"] for line in logs] == ["watchdog_overslept"]
    assert owner.watchdog.silence < 600
    assert owner.stalled.empty()
    owner.watchdog.rest()
