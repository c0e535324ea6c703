"""The host of an engine process: attachments, attempts, the lease."""

import io
import os
import signal

import psutil
import pytest
from PIL import Image

from service.config.table import Config
from service.core.events import JobCancelled, JobFinished
from service.core.inputs import EngineInputs
from service.engine.channel import GarbageError
from service.engine.protocol import (
    Cancel,
    EngineFailed,
    EngineReady,
    Generate,
    Held,
    Interrupt,
    Shutdown,
)
from service.engine.ray import lease
from service.engine.ray.host import EngineHost
from service.engine.ray.messages import Pulse, written_settings
from tests.support.wait import until
from tests.unit.engine.process import children
from tests.unit.engine.ray.conftest import REQUEST, SERVICE, SETTINGS, STAYS, WAIT_SECONDS, Driver


async def gone(process: psutil.Process) -> None:
    async def ended() -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    await until(ended, WAIT_SECONDS, "the process ends")


async def test_an_attached_host_makes_images_and_packs_them(driver):
    """What comes is a PNG file of the rows that the engine made."""
    assert await driver.generate("one")
    finished = await driver.next(JobFinished)
    (image,) = finished.images
    (made,) = children.images(REQUEST)
    assert (image.width, image.height, image.seed, image.packed) == (64, 64, made.seed, True)
    with Image.open(io.BytesIO(image.pixels)) as file:
        assert file.convert("RGB").tobytes() == made.pixels


async def test_input_images_reach_the_engine(driver):
    """They travel in the command."""
    inputs = EngineInputs(image=bytes(range(256)) * 48)
    await driver.tell(Generate(job_id="one", epoch=1, request=REQUEST, inputs=inputs))
    (image,) = (await driver.next(JobFinished)).images
    with Image.open(io.BytesIO(image.pixels)) as file:
        assert file.convert("RGB").tobytes() == inputs.image


async def test_an_older_generation_is_not_obeyed(driver, host):
    """A driver that was taken for dead changes nothing any more, and its stream ends."""
    newer = Driver(host, 2)
    await newer.attach()
    await driver.ended()
    assert await host.attach(SERVICE, 1, SETTINGS) == b""
    assert await host.renew(1, 1) == b""
    assert not await driver.generate("one")
    assert not await host.watch(1, "one", True)
    assert not await host.acknowledge(1, "one", 1)
    assert [batch async for batch in host.events(1)] == []
    await newer.ready()
    assert await newer.generate("one")
    newer.leave()


async def test_another_service_waits_until_the_lease_is_over(driver, host, clock):
    """Two services with one namespace do not take each other's engines in turn."""
    assert await host.attach("another", 2, SETTINGS) == b""
    assert await driver.generate("one")
    clock.now += lease.LOST_SECONDS
    assert await host.attach("another", 2, SETTINGS) != b""


async def test_a_new_driver_finds_what_is_in_work_and_what_has_ended(driver, host):
    """It hears of the model and of ends that nobody acknowledged, and the engine works on."""
    await driver.generate("stays", STAYS, 3)
    await driver.generate("over", REQUEST, 2)
    finished = await driver.next(JobFinished)
    driver.leave()
    pid = host.pid
    newer = Driver(host, 2)
    attached = await newer.attach()
    assert set(attached.held) == {Held(job_id="stays", epoch=3), Held(job_id="over", epoch=2)}
    assert (attached.starts, host.pid) == (1, pid)
    assert attached.ready
    await newer.ready()
    assert await newer.next(JobFinished) == finished
    assert await host.acknowledge(2, "over", 2)
    assert host.held == (Held(job_id="stays", epoch=3),)
    newer.leave()


async def test_an_attempt_runs_once_however_often_it_is_told(driver, host):
    """While it runs nothing happens; when it is over, its end comes again."""
    await driver.generate("stays", STAYS)
    await driver.generate("stays", STAYS)
    await driver.generate("one")
    first = await driver.next(JobFinished)
    await driver.generate("one")
    assert await driver.next(JobFinished) == first
    await driver.tell(Cancel(job_id="stays"))
    assert await driver.next(JobCancelled) == JobCancelled(job_id="stays", epoch=1)
    assert host.held == (Held(job_id="one", epoch=1), Held(job_id="stays", epoch=1))


async def test_a_later_attempt_takes_the_place_of_an_earlier_one(driver, host):
    """The earlier one ends without a word, and a command about the job is for the later one."""
    await driver.generate("job", STAYS, 1)
    await driver.generate("job", STAYS, 2)
    await driver.tell(Interrupt(job_id="job"))
    assert (await driver.next(JobFinished, JobCancelled)).epoch == 2
    await driver.generate("job", STAYS, 1)
    assert host.held == (Held(job_id="job", epoch=2),)


async def test_an_attempt_that_waits_for_an_earlier_one_can_be_cancelled(driver, host):
    """Both end, and the later one says so."""
    await driver.generate("job", STAYS, 1)
    await driver.generate("job", STAYS, 2)
    await driver.tell(Cancel(job_id="job"))
    assert await driver.next(JobCancelled) == JobCancelled(job_id="job", epoch=2)
    await driver.generate("next")
    await driver.next(JobFinished)
    assert host.held == (Held(job_id="job", epoch=2), Held(job_id="next", epoch=1))


async def test_a_killed_child_is_told_of_and_replaced(driver, host):
    """Its attempts are gone, and the count of children tells that."""
    await driver.generate("stays", STAYS)
    os.kill(host.pid, signal.SIGKILL)
    assert (await driver.exited()).reason == "killed"
    assert host.held == ()
    await driver.ready()
    driver.leave()
    newer = Driver(host, 2)
    assert (await newer.attach()).starts == 2
    newer.leave()


async def test_a_job_that_comes_after_the_end_of_the_child_is_not_held(driver, host):
    """The service hears of that end and runs it again."""
    os.kill(host.pid, signal.SIGKILL)
    await driver.exited()
    assert await driver.generate("one")
    assert host.held == ()


async def test_without_a_renewal_no_job_is_started(driver, host, clock):
    """It waits until the lease is renewed."""
    clock.now += lease.REST_SECONDS
    assert await driver.generate("one")
    assert host.held == (Held(job_id="one", epoch=1),)
    assert not host._working
    assert await driver.renew()
    assert not host._working  # What it has heard is as old.
    assert await driver.renew()
    assert (await driver.next(JobFinished)).job_id == "one"


async def test_a_host_whose_lease_is_over_ends_its_engine(driver, host, clock):
    """Its unfinished attempts may run elsewhere; what is finished is kept."""
    await driver.generate("over")
    await driver.next(JobFinished)
    await driver.generate("stays", STAYS)
    child = psutil.Process(host.pid)
    clock.now += lease.LOST_SECONDS
    await host.check()
    await gone(child)
    assert host.held == (Held(job_id="over", epoch=1),)
    assert await host.renew(1, 1) == b""
    assert not await driver.generate("one")
    driver.leave()
    newer = Driver(host, 2)
    assert (await newer.attach()).starts == 2
    assert (await newer.next(JobFinished)).job_id == "over"  # It does not wait for the model.
    await newer.ready()
    newer.leave()


async def test_a_host_that_stood_still_ends_its_engine_before_it_listens(driver, host, clock):
    """Calls that waited meanwhile come before any timer: the first of them finds the end."""
    await driver.generate("stays", STAYS)
    clock.now += lease.LOST_SECONDS
    assert await host.renew(1, 1) == b""
    assert (host.pid, host.held) == (None, ())


@pytest.mark.usefixtures("driver")
async def test_the_lease_is_looked_at_without_calls(host, clock):
    """Nobody calls a host that has lost its network."""
    child = psutil.Process(host.pid)
    clock.now += lease.LOST_SECONDS
    await gone(child)


async def test_other_settings_start_another_engine(driver, host):
    """What was made with the earlier ones is forgotten."""
    await driver.generate("over")
    await driver.next(JobFinished)
    driver.leave()
    pid = host.pid
    newer = Driver(host, 2)
    attached = await newer.attach(written_settings(Config(max_images=8)))
    assert (attached.held, attached.starts, attached.ready) == ((), 2, b"")
    assert host.pid != pid
    await newer.ready()
    newer.leave()


async def test_settings_that_no_engine_reads_keep_the_engine(driver, host):
    """The service came back with another port: the model stays loaded."""
    driver.leave()
    pid = host.pid
    newer = Driver(host, 2)
    attached = await newer.attach(written_settings(Config(api_port=8001, max_connections=64)))
    assert (attached.starts, host.pid) == (1, pid)
    newer.leave()


async def test_what_is_no_settings_or_no_command_changes_nothing(driver, host):
    """Whoever sent it is told."""
    pid = host.pid
    with pytest.raises(GarbageError):
        await host.attach(SERVICE, 2, b"\x81")
    with pytest.raises(GarbageError):
        await host.command(1, b"nothing")
    assert host.pid == pid
    assert await driver.generate("one")


async def test_a_model_that_could_not_be_loaded_is_tried_again_by_the_next_start():
    """Its files may be whole again."""
    host = EngineHost("0", entry=children.without_model)
    driver = Driver(host)
    await driver.attach()
    assert (await driver.next(EngineFailed, EngineReady)).detail == "no such folder"
    driver.leave()
    newer = Driver(host, 2)
    assert (await newer.attach()).starts == 2
    assert (await newer.next(EngineFailed, EngineReady)).detail == "no such folder"
    newer.leave()
    await host.stop()


async def test_an_event_that_cannot_be_sent_holds_up_no_other(driver, host, monkeypatch):
    """It is in the log of the host."""
    add = host._outbox.add

    def refuse(said):
        if said == JobCancelled(job_id="stays", epoch=1):
            raise ValueError("no room")
        add(said)

    monkeypatch.setattr(host._outbox, "add", refuse)
    await driver.generate("stays", STAYS)
    await driver.tell(Cancel(job_id="stays"))
    await driver.generate("one")
    assert (await driver.next(JobFinished, JobCancelled)).job_id == "one"


async def test_a_shutdown_ends_the_engine(driver, host):
    """The host stays and waits for an attachment."""
    child = psutil.Process(host.pid)
    assert await driver.tell(Shutdown())
    await gone(child)
    assert await host.renew(1, 1) == b""


async def test_whoever_renews_the_lease_hears_how_silent_the_child_is(driver):
    """An idle one may be silent."""
    before = driver.heard
    assert await driver.renew() == Pulse(number=before + 1, silence=0.0, late=False)


async def test_the_lease_counts_from_the_sign_of_life_that_was_heard(driver, host, clock):
    """The word that it was heard may come late, and then the jobs may be running elsewhere."""
    clock.now += lease.LOST_SECONDS - 1
    await driver.renew()
    assert host.lease.age == lease.LOST_SECONDS - 1
    await driver.renew()
    assert host.lease.age == 0


async def test_an_older_sign_of_life_renews_no_lease(driver, host, clock):
    """A call that was on its way for long says nothing of now; neither does a new attachment."""
    old = driver.heard
    await driver.renew()
    clock.now += 1
    await host.renew(1, old)
    assert host.lease.age == 1
    driver.leave()
    newer = Driver(host, 2)
    await newer.attach()
    assert host.lease.age == 1
    await newer.renew()
    assert host.lease.age == 0
    newer.leave()
