"""Whoever looks at the steps of a job is forgotten when it is over."""

from typing import Any

from service.core.events import JobCancelled, JobFailed, JobFinished
from service.engine.channel import COMMANDS, written
from service.engine.protocol import Cancel, EngineReady, Preview
from service.engine.ray.engine import RemoteEngine
from service.engine.ray.messages import EngineAttached, FromEngine, ToDriver, ToEngine, Watch
from tests.unit.engine.process.children import MODEL
from tests.unit.engine.ray.conftest import REQUEST, STAYS

ACTOR = "sd/test/node/0"


async def test_a_watch_that_comes_after_the_end_is_for_nothing(driver, host):
    """Nothing would end it, and the steps of all other jobs would come sooner for ever."""
    await driver.generate("one")
    await driver.next(JobFinished)
    assert await host.watch(1, "one", True)
    await driver.generate("stays", STAYS)
    assert await host.watch(1, "stays", True)
    assert host._outbox.watched == {"stays"}
    await driver.tell(Cancel(job_id="stays"))
    await driver.next(JobCancelled)
    assert host._outbox.watched == set()


async def test_the_engine_hears_that_nobody_looks_at_a_job_that_is_over():
    """Watchers leave after the last event: the child would keep the job's id for ever."""
    sent: list[ToDriver] = []
    engine = RemoteEngine(ACTOR, "10.0.0.2", sent.append)  # type: ignore[arg-type]
    await engine.start(lambda _event: None)
    ready = written(EngineReady(model=MODEL))
    at: dict[str, Any] = {"engine": ACTOR, "generation": 1}
    engine.attached(EngineAttached(**at, held=(), ready=ready, starts=1, gpu=""))
    engine.generate("one", REQUEST, 1)
    engine.preview("one", wanted=True)
    failed = JobFailed(job_id="one", epoch=1, code="generation_failed", detail="no idea")
    engine.heard(FromEngine(**at, events=(written(failed),)))
    sent.clear()
    engine.preview("one", wanted=False)
    await engine.stop()
    watch, command = sent[:2]
    assert watch == Watch(**at, job_id="one", wanted=False)
    assert isinstance(command, ToEngine)
    assert COMMANDS.read(command.command) == Preview(job_id="one", wanted=False)
