"""A job that a host went on with, from its attachment to the service's dispatcher."""

from service.config.table import Config
from service.core.events import JobFailed
from service.engine.base import EngineState
from service.engine.channel import written
from service.engine.protocol import EngineReady, Held
from service.engine.ray.engine import RemoteEngine
from service.engine.ray.messages import End, EngineAttached, FromEngine, ToDriver, ToEngine
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import JobState
from service.telemetry.metrics import Metrics
from tests.support.jobs.scripted_engine import job, settle
from tests.support.simulation.fake_engine import FAKE_MODEL

ACTOR = "sd/home/node/0"


def attached(*held: Held) -> EngineAttached:
    """Return the first word of a host whose engine is ready."""
    ready = written(EngineReady(model=FAKE_MODEL))
    return EngineAttached(engine=ACTOR, generation=1, held=held, ready=ready, starts=1, gpu="")


async def test_a_begin_that_was_written_nowhere_costs_no_engine():
    """The job goes on in its attempt; nothing is begun there under the same number."""
    sent: list[ToDriver] = []
    dispatcher = Dispatcher([], Metrics(), Config())
    dispatcher.adoption_seconds = 60
    dispatcher.restore(begun := job())
    await dispatcher.start()

    def send(order) -> None:
        sent.append(order)

    dispatcher.join(engine := RemoteEngine(ACTOR, "10.0.0.2", send))
    await settle()
    engine.attached(attached(Held(job_id=begun.id, epoch=1)))
    await settle()
    assert (begun.state, begun.attempts, begun.epoch) == (JobState.RUNNING, 1, 1)
    assert not [each for each in sent if isinstance(each, ToEngine)]
    end = written(JobFailed(job_id=begun.id, epoch=1, code="out_of_memory", detail="full"))
    engine.heard(FromEngine(engine=ACTOR, generation=1, events=(end,)))
    assert (begun.state, engine.state) == (JobState.FAILED, EngineState.READY)
    assert not [each for each in sent if isinstance(each, End)]
    await dispatcher.stop()
