"""One engine of a cluster as the driver holds it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
import structlog.testing

from service.engine.channel import written
from service.engine.protocol import Held
from service.engine.ray import link as links
from service.engine.ray.link import (
    Generations,
    HostGoneError,
    HostSilentError,
    Link,
    Pauses,
    parts_of,
)
from service.engine.ray.messages import (
    Acknowledge,
    Alive,
    EngineAttached,
    EngineGone,
    EngineJoined,
    EventBatch,
    FromDriver,
    FromEngine,
    Pulse,
    ToEngine,
    Watch,
)

ENGINE = "sd/home/node/0"


async def until(condition: Callable[[], object]) -> None:
    """Let the others work until it holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the things waited for tell nobody
            await asyncio.sleep(0)


class PaperHost:
    """A host that answers what it is told to answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.obeyed: list[int] = []
        self.refusals = 0
        """Attachments that it refuses."""
        self.failures: deque[Exception] = deque()
        """Raised by the next calls of ``renew``."""
        self.batches: asyncio.Queue[tuple[bytes, ...]] = asyncio.Queue()
        self.pulses = 0
        """Signs of life that it has given."""
        self.closed = 0
        self.killed = False

    async def call(self, method: str, *arguments: Any, seconds: float) -> Any:
        self.calls.append((method, *arguments))
        if method == "attach":
            return self._attach(arguments[1])
        if method == "renew":
            if self.failures:
                raise self.failures.popleft()
            self.pulses += 1
            return written(Pulse(number=self.pulses, silence=0.5, late=False))
        return True

    def _attach(self, generation: int) -> bytes:
        if self.refusals:
            self.refusals -= 1
            return b""
        self.obeyed.append(generation)
        self.pulses += 1
        return written(
            EngineAttached(
                engine=ENGINE,
                generation=generation,
                held=(Held(job_id="one", epoch=1),),
                ready=b"",
                starts=1,
                gpu="",
                pulse=self.pulses,
            )
        )

    async def events(self, generation: int) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield written(EventBatch(events=await self.batches.get()))
        finally:
            self.closed += 1

    async def kill(self) -> None:
        self.killed = True


class Linked:
    """A link, its host, and what it has said."""

    def __init__(self) -> None:
        self.host = PaperHost()
        self.said: list[FromDriver] = []
        self.link = Link(
            *(self.host, self._send, Generations()),
            engine=ENGINE,
            node="10.0.0.2",
            service="me",
            settings=b"settings",
        )

    async def _send(self, message: FromDriver) -> None:
        self.said.append(message)

    def kinds(self) -> list[type]:
        return [type(each) for each in self.said]

    def of(self, kind: type) -> list[Any]:
        return [each for each in self.said if isinstance(each, kind)]

    async def attached(self, times: int = 1) -> int:
        await until(lambda: len(self.of(EngineAttached)) == times)
        return self.host.obeyed[-1]


@pytest.fixture
async def held(monkeypatch) -> AsyncIterator[Linked]:
    """Return one that begins, with pauses that do not count."""
    monkeypatch.setattr(links, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(links, "RENEW_SECONDS", 0.01)
    made = Linked()
    yield made
    await made.link.end()


async def test_a_host_joins_with_its_first_answer(held):
    """Under the service's name and settings, before anything of it is said."""
    held.link.start()
    generation = await held.attached()
    assert held.kinds()[:2] == [EngineJoined, EngineAttached]
    assert held.host.calls[0] == ("attach", "me", generation, b"settings")
    await until(lambda: held.of(Alive))
    assert held.of(Alive)[0] == Alive(engine=ENGINE, generation=generation, silence=0.5, late=False)


async def test_a_renewal_says_which_sign_of_life_was_heard_last(held):
    """The first is the attachment itself; the service hears each before it counts."""
    held.link.start()
    generation = await held.attached()
    await until(lambda: len(held.of(Alive)) == 3)
    renewed = [call for call in held.host.calls if call[0] == "renew"]
    assert renewed[:3] == [("renew", generation, number) for number in (1, 2, 3)]


async def test_orders_reach_the_host_one_after_the_other(held):
    """In the order in which they came; what is for an earlier attachment is dropped."""
    held.link.start()
    generation = await held.attached()
    at = {"engine": ENGINE, "generation": generation}
    held.link.order(ToEngine(engine=ENGINE, generation=generation - 1, command=b"old"))
    held.link.order(ToEngine(**at, command=b"new"))
    held.link.order(Watch(**at, job_id="one", wanted=True))
    held.link.order(Acknowledge(**at, job_id="one", epoch=2))
    await until(lambda: any(call[0] == "acknowledge" for call in held.host.calls))
    assert [call for call in held.host.calls if call[0] not in {"attach", "renew"}] == [
        ("command", generation, b"new"),
        ("watch", generation, "one", True),
        ("acknowledge", generation, "one", 2),
    ]


async def test_events_go_on_in_their_order(held):
    """Large ones each in a message."""
    held.link.start()
    generation = await held.attached()
    large = bytes(links.PART_BYTES)
    held.host.batches.put_nowait((b"a", b"b", large, b"c"))
    await until(lambda: len(held.of(FromEngine)) == 3)
    assert [each.events for each in held.of(FromEngine)] == [(b"a", b"b"), (large,), (b"c",)]
    assert {each.generation for each in held.of(FromEngine)} == {generation}


async def test_a_host_that_is_silent_is_attached_anew(held):
    """With a higher generation; its stream is closed, and it joins once only."""
    held.link.start()
    first = await held.attached()
    await until(lambda: held.of(Alive))
    held.host.failures.append(HostSilentError("no answer"))
    second = await held.attached(2)
    assert second > first
    assert held.host.closed == 1
    assert len(held.of(EngineJoined)) == 1


async def test_a_host_of_another_service_is_asked_until_it_is_free(held):
    """It refuses as long as that one renews its lease."""
    held.host.refusals = 3
    held.link.start()
    await held.attached()
    assert [call[0] for call in held.host.calls[:4]] == ["attach"] * 4


async def test_an_actor_that_ended_is_told_and_over(held):
    """The driver makes another one."""
    held.link.start()
    await held.attached()
    held.host.failures.append(HostGoneError("killed"))
    await until(lambda: held.link.over)
    assert held.said[-1] == EngineGone(engine=ENGINE, reason="killed")


async def test_an_attachment_begins_anew_when_the_service_wants_it(held):
    """What is ordered meanwhile is for the earlier one."""
    held.link.start()
    first = await held.attached()
    held.link.attach_again()
    held.link.order(ToEngine(engine=ENGINE, generation=first, command=b"late"))
    second = await held.attached(2)
    assert second > first
    assert ("command", first, b"late") not in held.host.calls


@pytest.mark.parametrize("kill", [True, False])
async def test_a_link_lets_its_host_go(held, kill):
    """With its actor, or so that another driver can take it up."""
    held.link.start()
    await held.attached()
    await held.link.end(kill=kill)
    assert held.host.killed is kill
    assert held.host.closed == 1


async def test_what_nobody_thought_of_is_told(held):
    """The link is over then, and another one is made."""
    held.host.failures.append(ZeroDivisionError("of a bug"))
    with structlog.testing.capture_logs() as lines:
        held.link.start()
        await until(lambda: held.link.over)
        await until(lambda: lines)
    (line,) = [each for each in lines if each["event"] == "engine_link_failed"]
    assert str(line["exc_info"]) == "of a bug"


def test_an_actor_that_ends_before_it_joins_is_made_anew_after_pauses_that_grow():
    """Up to half a minute; one that joined begins anew."""
    pauses = Pauses()
    assert pauses.over("a", 0.0)
    for seconds in (2, 4, 8, 16, 30, 30):
        pauses.ended("a", 100.0)
        assert not pauses.over("a", 99.9 + seconds)
        assert pauses.over("a", 100.0 + seconds)
        assert pauses.over("b", 100.0)
    pauses.forget("a")
    assert pauses.over("a", 100.0)


def test_generations_only_grow():
    """Also where the clock does not."""
    generations = Generations()
    numbers = [generations.next() for _ in range(1000)]
    assert sorted({*numbers}) == numbers
    assert numbers[0] < Generations().next() < 2**63


@pytest.mark.parametrize(
    ("sizes", "parts"), [((), []), ((1, 2), [2]), ((2**19, 1), [1, 1]), ((2**20,) * 2, [1, 1])]
)
def test_messages_stay_short(sizes, parts):
    """One large event, or many small ones."""
    events = tuple(map(bytes, sizes))
    found = parts_of(events)
    assert [len(part) for part in found] == parts
    assert tuple(event for part in found for event in part) == events
