"""One engine of a cluster as the driver holds it: attached, renewed each second, read."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import structlog

from service.engine.channel import GarbageError
from service.engine.ray.messages import (
    FROM_HOST,
    Acknowledge,
    Alive,
    EngineAttached,
    EngineGone,
    EngineJoined,
    EventBatch,
    FromDriver,
    FromEngine,
    FromHost,
    Pulse,
    ToEngine,
    Watch,
)

log = structlog.get_logger(__name__)

RENEW_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0
"""A host that has not answered for so long has ended its child."""

AGAIN_SECONDS: Final = 0.5
"""Pause before a host that did not answer, or obeys another service, is asked again."""

FIRST_PAUSE_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 30.0
"""The longest before an actor is made again that ended before its engine had joined."""

PART_BYTES: Final = 2**19
"""Events of so many bytes together go on in a message of their own."""

Send = Callable[[FromDriver], Awaitable[None]]
Answer = TypeVar("Answer", bound=FromHost)
ForEngine = ToEngine | Watch | Acknowledge


class HostGoneError(Exception):
    """The actor has ended, and all that it had."""


class HostSilentError(Exception):
    """The host did not answer, or it obeys somebody else."""


class Host(Protocol):
    """What a link asks of a host; behind it is an actor.

    Every method may raise ``HostGoneError`` and ``HostSilentError``.
    """

    async def call(self, method: str, *arguments: Any, seconds: float) -> Any:
        """Return what a method answers, within some seconds."""

    def events(self, generation: int) -> AsyncGenerator[bytes, None]:
        """Yield batches of events, until another attachment begins."""

    async def kill(self) -> None:
        """End the actor, and its child with it."""


class Generations:
    """Numbers of attachments: each is higher than all before it, also of earlier drivers."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Return the next one: nanoseconds since 1970, or one more than the last."""
        self._last = max(self._last + 1, time.time_ns())
        return self._last


class Pauses:
    """How long to wait before an actor is made again that ended before its engine had joined.

    It would end again, as long as its machine is as it is.
    """

    def __init__(self) -> None:
        self._ended: dict[str, tuple[int, float]] = {}
        """How often in a row, and when it may be made again."""

    def ended(self, name: str, now: float) -> None:
        """Note that an actor has ended; the pause doubles each time."""
        times, _ = self._ended.get(name, (0, 0.0))
        pause = min(FIRST_PAUSE_SECONDS * 2**times, PAUSE_SECONDS)
        self._ended[name] = min(times + 1, 10), now + pause

    def forget(self, name: str) -> None:
        """Begin anew with an engine that has joined, or is not wanted any more."""
        self._ended.pop(name, None)

    def names(self) -> set[str]:
        """Return those whose actors have ended so."""
        return {*self._ended}

    def over(self, name: str, now: float) -> bool:
        """Return whether its actor may be made."""
        return now >= self._ended.get(name, (0, now))[1]


class Link:
    """Keeps one host attached until it ends or is let go."""

    def __init__(
        self,
        host: Host,
        send: Send,
        generations: Generations,
        *,
        engine: str,
        node: str,
        service: str,
        settings: bytes,
    ) -> None:
        self.engine, self.node = engine, node
        self._host, self._send, self._generations = host, send, generations
        self._service, self._settings = service, settings
        self._log = log.bind(actor=engine)
        self._generation = 0
        self._orders: asyncio.Queue[ForEngine] = asyncio.Queue()
        self._again = asyncio.Event()
        """Set when the attachment is to begin anew."""
        self._joined = False
        self._task: asyncio.Task[None] | None = None

    @property
    def joined(self) -> bool:
        """Whether the host has answered once, so that the service knows the engine."""
        return self._joined

    @property
    def over(self) -> bool:
        """Whether the actor has ended."""
        return self._task is not None and self._task.done()

    def start(self) -> None:
        """Begin to attach the host."""
        self._task = asyncio.create_task(self._run(), name=f"link {self.engine}")
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Log an unexpected error; the next look at the cluster links the engine anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("engine_link_failed", exc_info=error)

    def order(self, order: ForEngine) -> None:
        """Hand something to the host, in its turn; what is for an earlier attachment is dropped."""
        if order.generation == self._generation:
            self._orders.put_nowait(order)

    def attach_again(self) -> None:
        """Attach anew: what the host still says to the attachment before is not heard."""
        self._generation = 0
        self._again.set()

    async def end(self, *, kill: bool = True) -> None:
        """Let the host go; ``kill`` ends it with its child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if kill:
            await end(self._host)

    async def _run(self) -> None:
        while True:
            try:
                await self._attach()
            except HostGoneError as error:
                self._log.warning("engine_actor_ended", reason=str(error))
                self._generation = 0
                await self._send(EngineGone(engine=self.engine, reason=str(error)))
                return
            except (HostSilentError, GarbageError) as error:
                self._log.warning("engine_not_attached", reason=str(error))
            self._generation = 0
            await asyncio.sleep(AGAIN_SECONDS)

    async def _attach(self) -> None:
        """Attach the host and carry what passes, until that fails."""
        generation = self._generations.next()
        attached = answered(
            await self._call("attach", self._service, generation, self._settings), EngineAttached
        )
        if attached.generation != generation:
            raise GarbageError("a host obeys another generation than it was told")
        if not self._joined:
            self._joined = True
            await self._send(EngineJoined(engine=self.engine, node=self.node))
        self._orders, self._generation = asyncio.Queue(), generation
        self._again.clear()
        await self._send(attached)
        renewing = self._renew(generation, attached.pulse)
        parts = (renewing, self._obey(), self._hear(generation), self._again.wait())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _renew(self, generation: int, heard: int) -> None:
        """Renew the lease each second, with the sign of life that was heard last."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + RENEW_SECONDS  # At once after an answer that came late.
            pulse = answered(await self._call("renew", generation, heard), Pulse)
            alive = partial(Alive, engine=self.engine, generation=generation)
            await self._send(alive(silence=pulse.silence, late=pulse.late))
            heard = pulse.number
            await asyncio.sleep(due - loop.time())

    async def _obey(self) -> None:
        """Hand on what is ordered, one after the other: Ray would let a short one overtake."""
        while True:
            match await self._orders.get():
                case ToEngine(generation=generation, command=command):
                    await self._call("command", generation, command)
                case Watch(generation=generation, job_id=job_id, wanted=wanted):
                    await self._call("watch", generation, job_id, wanted)
                case Acknowledge(generation=generation, job_id=job_id, epoch=epoch):
                    await self._call("acknowledge", generation, job_id, epoch)

    async def _hear(self, generation: int) -> None:
        """Carry events to the service, no faster than it takes them."""
        async with contextlib.aclosing(self._host.events(generation)) as batches:
            async for data in batches:
                batch = answered(data, EventBatch)
                for part in parts_of(batch.events):
                    await self._send(
                        FromEngine(engine=self.engine, generation=generation, events=part)
                    )

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Call the host; a refusal is that it obeys somebody else."""
        answer = await self._host.call(method, *arguments, seconds=ANSWER_SECONDS)
        if not answer:
            raise HostSilentError("it obeys another service or a later driver")
        return answer


async def end(host: Host) -> None:
    """End an actor with its engine, unless it has ended."""
    with contextlib.suppress(HostGoneError, HostSilentError):
        await host.kill()


def answered(data: bytes, kind: type[Answer]) -> Answer:
    """Return what a host answered.

    Raises:
        GarbageError: it is something else.

    """
    answer = FROM_HOST.read(data)
    if not isinstance(answer, kind):
        raise GarbageError(f"a host answered {type(answer).__name__}")
    return answer


def parts_of(events: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Return events in messages that are not too long: one large event, or many small ones."""
    parts: list[list[bytes]] = []
    size = PART_BYTES
    for event in events:
        if size + len(event) > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(event)
        size += len(event)
    return [tuple(part) for part in parts]
