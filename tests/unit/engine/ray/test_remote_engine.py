"""An engine on another machine, as the dispatcher sees it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.core.events import JobCancelled, JobFailed, JobFinished, ModelLoaded, Stepped
from service.core.spec import GenerationSpec
from service.engine.base import EngineState
from service.engine.channel import COMMANDS, written
from service.engine.protocol import (
    Cancel,
    EngineAdopted,
    EngineExited,
    EngineReady,
    Event,
    Generate,
    Held,
    Interrupt,
    LoadModel,
    Preview,
    StageStarted,
)
from service.engine.ray import engine as remote
from service.engine.ray.engine import RemoteEngine
from service.engine.ray.messages import (
    Acknowledge,
    Alive,
    Attach,
    Drain,
    End,
    EngineAttached,
    FromEngine,
    ToDriver,
    ToEngine,
    Watch,
)
from tests.support.simulation.fake_engine import FAKE_MODEL

ACTOR = "sd/home/node/0"
SPEC = GenerationSpec(prompt="a cat", seed=1, steps=4)
READY = EngineReady(model=FAKE_MODEL)


class Far:
    """A remote engine, what it sends, and what its listener hears."""

    def __init__(self) -> None:
        self.sent: list[ToDriver] = []
        self.told: list[Event] = []
        self.adopted: list[int] = []
        self.engine = RemoteEngine(ACTOR, "10.0.0.2", self._send, self.adopted.append)
        self.adopting: dict[str, GenerationSpec] = {}
        """What the listener takes up of jobs that the engine went on with."""

    def _send(self, order) -> None:
        made = order() if callable(order) else order
        if made is not None:
            self.sent.append(made)

    def hear(self, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, EngineAdopted):
            for each in event.jobs:
                if each.job_id in self.adopting:
                    self.engine.adopt(each.job_id, self.adopting[each.job_id], each.epoch)

    def attach(
        self, *held: tuple[str, int], generation: int = 1, starts: int = 1, ready: bool = True
    ) -> None:
        self.engine.attached(
            EngineAttached(
                engine=ACTOR,
                generation=generation,
                held=tuple(Held(job_id=job_id, epoch=epoch) for job_id, epoch in held),
                ready=written(READY) if ready else b"",
                starts=starts,
                gpu="",
            )
        )

    def say(self, *events: object, generation: int = 1) -> None:
        said = tuple(map(written, events))
        self.engine.heard(FromEngine(engine=ACTOR, generation=generation, events=said))

    def alive(self, *, generation: int = 1, late: bool = False) -> None:
        self.engine.alive(Alive(engine=ACTOR, generation=generation, silence=0.0, late=late))

    def states(self) -> list[EngineState]:
        """Return its state; a list, as types do not see it change."""
        return [self.engine.state]

    @property
    def commands(self) -> list[object]:
        orders = [each for each in self.sent if isinstance(each, ToEngine)]
        return [COMMANDS.read(each.command) for each in orders]

    @property
    def acknowledged(self) -> list[tuple[str, int]]:
        return [(each.job_id, each.epoch) for each in self.sent if isinstance(each, Acknowledge)]

    def exits(self) -> list[str]:
        return [each.reason for each in self.told if isinstance(each, EngineExited)]


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    """Return one that is attached and ready."""
    made = Far()
    await made.engine.start(made.hear)
    made.attach()
    made.told.clear()
    yield made
    await made.engine.stop()


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Return what is added to the clock of the engine's silence."""
    ahead = [0.0]
    monkeypatch.setattr(
        RemoteEngine,
        "_now",
        staticmethod(lambda: asyncio.get_running_loop().time() + ahead[0]),
    )
    return ahead


def failed(job_id: str, epoch: int = 1) -> JobFailed:
    return JobFailed(job_id=job_id, epoch=epoch, code="generation_failed", detail="no")


def stepped(*jobs: str, done: int = 1) -> Stepped:
    return Stepped(
        progress=dict.fromkeys(jobs, done),
        shares=dict.fromkeys(jobs, 0.1),
        epochs=dict.fromkeys(jobs, 1),
        batch_size=len(jobs),
        pixels=262_144,
        seconds=0.1,
    )


async def test_it_is_ready_when_its_host_is(far):
    """The state and the model are those of the host's child."""
    assert far.states() == [EngineState.READY]
    assert far.engine.model == FAKE_MODEL
    assert not far.engine.late


async def test_an_attachment_and_results_may_come_before_the_start():
    """The driver does not wait for the dispatcher, and a host sends what it kept once."""
    far = Far()
    far.adopting["done"] = SPEC
    far.attach(("done", 2))
    far.say(failed("done", 2))
    assert far.told == []
    await far.engine.start(far.hear)
    assert [type(each) for each in far.told] == [EngineAdopted, EngineReady, JobFailed]
    await far.engine.stop()


async def test_a_job_goes_and_its_end_is_acknowledged(far):
    """After the listener has it: before, the host has to keep it."""
    far.engine.generate("one", SPEC, 1)
    far.say(stepped("one"), failed("one"))
    assert far.commands == [Generate(job_id="one", epoch=1, request=SPEC)]
    assert [type(each) for each in far.told] == [Stepped, JobFailed]
    assert far.acknowledged == [("one", 1)]


async def test_an_end_that_comes_twice_is_told_once(far):
    """A host repeats what was not acknowledged; the second time it may forget it."""
    far.engine.generate("one", SPEC, 1)
    far.say(failed("one"), failed("one"))
    assert len(far.told) == 1
    assert far.acknowledged == [("one", 1)] * 2


async def test_images_that_cannot_be_read_fail_their_job(far):
    """And no other; nothing goes to the host."""

    def unreadable():
        raise OSError("gone")

    far.engine.generate("one", SPEC, 1, unreadable)
    await asyncio.sleep(0)
    assert [type(each) for each in far.told] == [JobFailed]
    assert far.commands == []


async def test_a_driver_that_ended_costs_nothing(far):
    """The next one attaches, what ran goes on, and what may have been lost is said again."""
    for job_id in ("one", "two", "three"):
        far.engine.generate(job_id, SPEC, 1)
    far.engine.cancel("one")
    far.engine.interrupt("two")
    far.engine.preview("three", wanted=True)
    far.engine.load_model("m")
    far.engine.cut_off()
    assert far.engine.late
    far.sent.clear()
    far.attach(("one", 1), ("two", 1), ("three", 1), generation=2)
    assert not far.engine.late
    assert far.exits() == []
    assert far.adopted == [0, 3]
    assert far.commands == [
        *(Cancel(job_id="one"), Interrupt(job_id="two")),
        *(Preview(job_id="three", wanted=True), LoadModel(model_id="m")),
    ]
    assert Watch(engine=ACTOR, generation=2, job_id="three", wanted=True) in far.sent
    far.say(failed("two"), generation=2)
    assert isinstance(far.told[-1], JobFailed)


async def test_a_model_that_came_is_not_asked_for_again(far):
    """Only what has no answer is repeated."""
    far.engine.load_model("m")
    far.say(ModelLoaded(model_id="m", model=FAKE_MODEL, seconds=0.1))
    far.sent.clear()
    far.attach(generation=2)
    assert far.commands == []


async def test_what_an_earlier_attachment_says_is_not_heard(far):
    """It may have been on its way for long."""
    far.engine.generate("one", SPEC, 1)
    far.attach(("one", 1), generation=2)
    far.told.clear()
    far.say(failed("one"), generation=1)
    far.alive(generation=1)
    far.attach(generation=1)
    assert far.told == []


async def test_a_job_that_the_host_does_not_have_is_not_heard_of_again(far):
    """The dispatcher runs it again when it hears what the host has."""
    far.engine.generate("one", SPEC, 1)
    far.attach(generation=2)
    assert far.told == [EngineAdopted(jobs=())]
    far.told.clear()
    far.say(stepped("one"), failed("one"), generation=2)
    assert far.told == []


async def test_a_child_that_ended_while_nobody_listened_has_lost_its_jobs(far):
    """The number of children tells it, although the new one is ready."""
    far.engine.generate("one", SPEC, 1)
    far.attach(generation=2, starts=2)
    assert [type(each) for each in far.told] == [EngineExited, EngineAdopted, EngineReady]
    assert far.exits() == ["lost"]
    assert far.states() == [EngineState.READY]


async def test_a_child_that_loads_anew_is_not_ready(far):
    """After a lease that was lost, say."""
    far.attach(generation=2, starts=2, ready=False)
    assert far.exits() == ["lost"]
    assert far.states() == [EngineState.RESTARTING]
    far.say(READY, generation=2)
    assert far.states() == [EngineState.READY]


async def test_jobs_of_a_service_before_are_taken_up(far):
    """Those that the dispatcher wants; the host may forget the others."""
    far.adopting["one"] = SPEC
    far.attach(("one", 3), ("two", 1), generation=2)
    assert far.acknowledged == [("two", 1)]
    assert far.adopted == [0, 1]
    far.told.clear()
    far.say(stepped("two"), failed("two"), failed("one", 3), generation=2)
    assert [each.job_id for each in far.told if isinstance(each, JobFailed)] == ["one"]
    assert far.acknowledged == [("two", 1), ("two", 1), ("one", 3)]


async def test_a_step_tells_of_the_jobs_that_are_known(far):
    """Others in the batch are on their way out."""
    far.engine.generate("one", SPEC, 1)
    far.say(stepped("one", "ghost"))
    assert far.told == [
        Stepped(
            progress={"one": 1},
            shares={"one": 0.1},
            epochs={"one": 1},
            batch_size=2,
            pixels=262_144,
            seconds=0.1,
        )
    ]


async def test_a_child_that_ends_is_told_as_a_local_one(far):
    """With its exit code; the next one gets ready in the same attachment."""
    far.engine.generate("one", SPEC, 1)
    far.say(EngineExited(exit_code=-9, restarts=7, restart_seconds=0.5), READY)
    assert far.told == [EngineExited(exit_code=-9, restarts=1, restart_seconds=0.5), READY]
    assert far.states() == [EngineState.READY]
    far.attach(generation=2, starts=2)
    assert far.exits() == ["killed"]


@pytest.mark.parametrize(
    "garbage",
    [
        JobFinished(job_id="one", epoch=1, images=()),
        JobCancelled(job_id="one", epoch=1),
        failed("one", 9),
        EngineExited(exit_code=None, restarts=1, cause="of my own"),
        EngineExited(exit_code=None, restarts=1, restart_seconds=-1.0),
        Cancel(job_id="one"),
    ],
    ids=lambda said: type(said).__name__,
)
async def test_what_cannot_be_ends_the_engine(far, garbage):
    """Nothing of this attachment is heard after it, and the actor is made anew."""
    far.engine.generate("one", SPEC, 1)
    far.say(garbage, stepped("one"))
    assert [type(each) for each in far.told] == [EngineExited]
    assert far.exits() == ["garbage"]
    assert End(engine=ACTOR, reason="garbage") in far.sent
    far.say(stepped("one"))
    assert len(far.told) == 1


async def test_an_actor_that_ended_has_lost_its_jobs(far):
    """The next one joins under the same name."""
    far.engine.generate("one", SPEC, 1)
    far.engine.gone("killed")
    assert far.exits() == ["lost"]
    assert far.states() == [EngineState.RESTARTING]
    far.attach(generation=2)
    assert far.states() == [EngineState.READY]


async def test_silence_first_ends_new_jobs_and_then_the_engine(far, clock):
    """After 3 s it is late, after 10 s its jobs run elsewhere, and another attachment is wanted."""
    far.engine.generate("one", SPEC, 1)
    clock[0] = remote.SUSPECT_SECONDS - 0.5
    far.engine._look(far.engine._now())
    assert not far.engine.late
    clock[0] = remote.SUSPECT_SECONDS + 0.5
    far.engine._look(far.engine._now())
    assert far.engine.late
    assert far.engine.silence > remote.SUSPECT_SECONDS
    assert far.exits() == []
    clock[0] = remote.LOST_SECONDS + 0.5
    far.engine._look(far.engine._now())
    assert far.exits() == ["lost"]
    assert Attach(engine=ACTOR) in far.sent
    far.say(stepped("one"))
    assert len(far.told) == 1


async def test_metrics_tell_how_it_answers(far, clock):
    """By its slot, and for how long it has not been heard."""
    far.engine.name = "7"
    assert far.engine.lease(leaving=False).status == "answering"
    assert far.engine.lease(leaving=True).status == "leaving"
    clock[0] = remote.SUSPECT_SECONDS + 0.5
    lease = far.engine.lease(leaving=False)
    assert (lease.slot, lease.status) == ("7", "late")
    assert lease.age > remote.SUSPECT_SECONDS
    far.engine.gone("killed")
    assert far.engine.lease(leaving=False).status == "lost"


async def test_the_dispatcher_hears_of_a_host_that_is_heard_again(far, clock):
    """It is told by a stage, so that what waits can start."""
    clock[0] = remote.SUSPECT_SECONDS + 0.5
    assert far.engine.late
    far.alive()
    assert not far.engine.late
    assert [type(each) for each in far.told] == [StageStarted]


async def test_a_child_that_hangs_is_late_although_its_host_is_heard(far):
    """As the host's own watchdog says."""
    far.alive(late=True)
    assert far.engine.late
    far.alive()
    assert not far.engine.late


async def test_a_service_that_stood_still_has_lost_nothing(far, clock):
    """What was said meanwhile is on its way."""
    due = far.engine._now()
    clock[0] = remote.LOST_SECONDS + 50
    far.engine._look(due)
    assert far.exits() == []
    assert not far.engine.late


async def test_a_stop_lets_the_driver_end_the_actor(far):
    """The engine has no jobs then, and is not heard any more."""
    await far.engine.stop()
    assert far.sent[-1] == Drain(engine=ACTOR)
    far.say(READY)
    assert far.told == []
