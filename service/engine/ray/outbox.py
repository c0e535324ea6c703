"""Events of one engine on their way to the service: merged, replayed, and ends kept."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from service.core.capacity import Capacity
from service.core.events import (
    MOST_STEPS,
    AdaptersChanged,
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelLoaded,
    ModelsResident,
    ModelUnloaded,
    OutOfMemoryHit,
    Previewed,
    Stepped,
)
from service.engine.channel import written
from service.engine.protocol import EngineExited, EngineFailed, EngineReady, Event, Held

PULSE_SECONDS: Final = 1.0
"""Without an event, an empty batch is sent as a sign of life."""

CALM_SECONDS: Final = 0.5
"""Between two batches while nobody looks at a job's steps."""

WATCHED_SECONDS: Final = 0.125
"""Between two batches while somebody does."""

LARGEST_BATCH: Final = 2**20
"""Bytes, if its first event alone is no larger."""

KEPT_BYTES: Final = 2**28
"""Of ends that were sent and not acknowledged; the oldest are forgotten first."""

End = JobFinished | JobFailed | JobCancelled
LIGHT: Final = (Stepped, Previewed)
"""Events that may wait a moment, and whose newest says it all."""

COUNTED: Final = (Stepped, OutOfMemoryHit)
"""Reports that count seconds of a GPU, or faults: nothing that comes later says it again."""


@dataclass(kw_only=True)
class Kept:
    """The end of an attempt, until it is acknowledged."""

    epoch: int
    data: bytes = b""
    """Empty while its images are packed."""
    sent: bool = False


class Outbox:
    """What an engine said that the service has not taken.

    Batches are taken by one reader at a time: whoever began to read last. All methods are called
    on one event loop.
    """

    def __init__(self) -> None:
        self.watched: set[str] = set()
        """Jobs at whose steps somebody looks."""
        self._pending: list[Event | bytes] = []
        self._learned: dict[tuple[type, str], Event] = {}
        """Last words about what lasts, by kind and model: another reader begins with them."""
        self._kept: dict[str, Kept] = {}
        self._changed = asyncio.Event()
        self._reader = 0
        self._taken = float("-inf")
        """When the last batch with events was."""

    @property
    def held(self) -> tuple[Held, ...]:
        """Return the attempts whose ends are kept."""
        return tuple(Held(job_id=job_id, epoch=each.epoch) for job_id, each in self._kept.items())

    @property
    def ready(self) -> bytes:
        """Return the event that told of the loaded model; empty while there is none."""
        said = self._learned.get((EngineReady, ""))
        return written(said) if said else b""

    def epoch(self, job_id: str) -> int | None:
        """Return the attempt whose end is kept."""
        return self._kept[job_id].epoch if job_id in self._kept else None

    def expect(self, job_id: str, epoch: int) -> None:
        """Count an end as kept that will be added when its images are packed.

        That of an earlier attempt than the one whose end is kept counts for nothing.
        """
        known = self.epoch(job_id)
        if known is None or known < epoch:
            self._kept[job_id] = Kept(epoch=epoch)

    def add(self, said: Event) -> None:
        """Take an event; the end of an attempt that is not expected any more is dropped."""
        match said:
            case JobFinished() | JobFailed() | JobCancelled():
                self._keep(said)
            case Stepped():
                self._step(said)
            case Previewed():
                self._drop(lambda old: isinstance(old, Previewed) and old.job_id == said.job_id)
                self._pending.append(said)
            case _:
                self._learn(said)
                self._pending.append(said)
        self._changed.set()

    def resend(self, job_id: str) -> None:
        """Send a kept end again."""
        if data := self._kept[job_id].data:
            self._pending.append(data)
            self._changed.set()

    def acknowledge(self, job_id: str, epoch: int) -> None:
        """Forget the end of an attempt, which has arrived."""
        if self.epoch(job_id) == epoch:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Forget the end of whichever attempt at a job."""
        kept = self._kept.pop(job_id, None)
        if kept and kept.data:
            self._drop(lambda old: old is kept.data)

    def lose(self) -> None:
        """Drop what an engine said that has ended, but not the ends of attempts."""
        self._learned.clear()
        self._drop(lambda old: not isinstance(old, bytes))

    def clear(self) -> None:
        """Forget everything."""
        self.lose()
        self._kept.clear()
        self._pending.clear()

    def open(self) -> int:
        """Begin to read; return the number that ``take`` wants. The reader before ends."""
        self._reader += 1
        self._changed.set()
        return self._reader

    def replay(self) -> None:
        """Begin anew for a reader that may know nothing: what lasts, then the kept ends.

        Reports in which something is counted come in between, unless their engine has ended.
        """
        reports: list[Event | bytes] = []
        for each in self._pending:
            if isinstance(each, EngineExited):
                reports.clear()
            elif isinstance(each, COUNTED):
                reports.append(each)
        self._pending = [*self._learned.values(), *reports]
        self._pending += [each.data for each in self._kept.values() if each.data]
        self._taken = float("-inf")

    async def take(self, reader: int) -> tuple[bytes, ...] | None:
        """Return the next batch, empty after a second without events; None for an old reader.

        Light events wait until the last batch is long enough ago; all others go at once.
        """
        loop = asyncio.get_running_loop()
        pulse = loop.time() + PULSE_SECONDS
        while reader == self._reader:
            due = min(pulse, self._due())
            if loop.time() >= due:
                if self._pending:
                    self._taken = loop.time()
                return self._batch()
            self._changed.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    def _due(self) -> float:
        if not self._pending:
            return float("inf")
        if not all(isinstance(each, LIGHT) for each in self._pending):
            return float("-inf")
        return self._taken + (WATCHED_SECONDS if self.watched else CALM_SECONDS)

    def _batch(self) -> tuple[bytes, ...]:
        batch: list[bytes] = []
        size = 0
        while self._pending and size < LARGEST_BATCH:
            said = self._pending[0]
            data = said if isinstance(said, bytes) else written(said)
            if batch and size + len(data) > LARGEST_BATCH:
                break
            del self._pending[0]
            size += len(data)
            batch.append(data)
            for each in self._kept.values():
                each.sent = each.sent or each.data is data
        self._limit()
        return tuple(batch)

    def _keep(self, end: End) -> None:
        kept = self._kept.get(end.job_id)
        if kept is None or kept.epoch != end.epoch:
            return
        self.watched.discard(end.job_id)
        kept.data = written(end)
        self._pending.append(kept.data)

    def _limit(self) -> None:
        """Forget the oldest ends that were sent, while they take too much memory."""
        size = sum(len(each.data) for each in self._kept.values())
        for job_id in [job_id for job_id, each in self._kept.items() if each.sent]:
            if size <= KEPT_BYTES:
                return
            size -= len(self._kept.pop(job_id).data)

    def _step(self, said: Stepped) -> None:
        """Merge a step into the one before, if that is on its way and of an equal batch."""
        for at in reversed(range(len(self._pending))):
            before = self._pending[at]
            if not isinstance(before, LIGHT):
                break
            if isinstance(before, Stepped):
                if merged := merge(before, said):
                    self._pending[at] = merged
                    return
                break
        self._pending.append(said)

    def _learn(self, said: Event) -> None:
        match said:
            case EngineReady() | EngineFailed():
                self._learned[type(said), ""] = said
            case ModelLoaded():
                # A reader that hears it again is told that it took no time.
                self._learned[ModelLoaded, said.model_id] = replace(said, seconds=0.0)
            case ModelUnloaded():
                for kind in (ModelLoaded, Capacity, BatchCalibrated):
                    self._learned.pop((kind, said.model_id), None)
            case Capacity() | BatchCalibrated():
                self._learned[type(said), said.model_id] = said
            case ModelsResident():
                self._learned[ModelsResident, ""] = said
            case AdaptersChanged():
                self._learned[AdaptersChanged, ""] = AdaptersChanged(held=said.held)
            case EngineExited():
                self._learned.clear()

    def _drop(self, unwanted: Callable[[Event | bytes], bool]) -> None:
        self._pending = [each for each in self._pending if not unwanted(each)]


def merge(first: Stepped, then: Stepped) -> Stepped | None:
    """Return two reports as one, or None where they are not of equal batches.

    Seconds and shares are summed, so that what is counted by them stays right.
    """
    if first.steps + then.steps > MOST_STEPS:
        return None
    batches = [(each.batch_size, each.pixels, each.model_id) for each in (first, then)]
    common = first.epochs.keys() & then.epochs.keys()
    if batches[0] != batches[1] or any(first.epochs[job] != then.epochs[job] for job in common):
        return None
    jobs = first.shares.keys() | then.shares.keys()
    return replace(
        then,
        steps=first.steps + then.steps,
        seconds=first.seconds + then.seconds,
        shares={job: first.shares.get(job, 0.0) + then.shares.get(job, 0.0) for job in jobs},
        progress=first.progress | then.progress,
        epochs=first.epochs | then.epochs,
    )
