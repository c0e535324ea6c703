"""An engine whose host hangs: it looks at the lease itself."""

import os
import signal

import psutil

from service.engine.channel import written
from service.engine.process.child import SPAWN
from service.engine.protocol import Shutdown
from service.engine.ray import lease as leases
from service.engine.ray.lease import LOST_SECONDS, REST_SECONDS, Lease, LeasedChannel
from tests.support.wait import until
from tests.unit.engine.ray import hosting
from tests.unit.engine.ray.conftest import WAIT_SECONDS


async def test_the_engine_of_a_host_that_hangs_ends_itself(tmp_path):
    """Its jobs run elsewhere after ten seconds, and before that it begins no further step."""
    notes = tmp_path / "notes"
    ours, theirs = SPAWN.Pipe()
    host = SPAWN.Process(target=hosting.run, args=(theirs, notes))
    host.start()
    try:
        assert ours.poll(WAIT_SECONDS)
        engine = psutil.Process(ours.recv())
        assert host.pid is not None
        os.kill(host.pid, signal.SIGSTOP)

        async def ended() -> bool:
            return not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE

        await until(ended, WAIT_SECONDS, "the engine ends")
    finally:
        host.kill()
        host.join()
    ages = [float(line) for line in notes.read_text().splitlines()]
    assert REST_SECONDS - 2 < max(ages) < LOST_SECONDS - 1


def test_an_engine_that_rests_goes_on_when_the_lease_is_renewed(clock, monkeypatch):
    """It gets the commands that came meanwhile."""
    ours, theirs = SPAWN.Pipe()
    lease = Lease(clock)
    ours.send_bytes(written(Shutdown()))
    clock.now += REST_SECONDS
    rests = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        lease.renew(pulse)

    pulse = lease.pulse()
    monkeypatch.setattr("time.sleep", rest)
    channel = LeasedChannel(theirs, lease)
    assert channel.poll()
    assert channel.receive() == Shutdown()
    assert rests == [leases.LOOK_SECONDS]
