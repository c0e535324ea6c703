"""Which engine slot runs which waiting job."""

from collections.abc import Collection, Iterable, Sequence
from heapq import nsmallest
from typing import Final

from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job

Start = tuple[Job, EngineSlot]

AS_FAST: Final = 1.25
"""Idle engines count as equally fast while their steps take at most so many times as long as those
of the fastest: what is measured of equal cards differs by less."""

LOOKED_AT: Final = 64
"""Slots with room that are compared for a job. Of more the ones with the fewest jobs are: to
compare all would take longer than all else (of the kind of Mitzenmacher, The Power of Two Choices,
2001)."""

BYPASSED: Final = 16
"""Slots up to which a job that has become the next one is tried in every full batch at once. With
more, each is tried when it has done its next step."""


def next_start(
    waiting: Iterable[Job], slots: Sequence[EngineSlot], free: Collection[EngineSlot]
) -> Start | None:
    """Return the first waiting job for which one of the ``free`` slots has room, and that slot.

    A job that has to wait for one slot does not keep the others from working: the jobs after
    it may start there. An engine that has been silent for too long is given nothing.
    """
    left = [slot for slot in free if not slot.engine.late]
    for job in waiting if left else ():
        if job.held:
            continue
        if job.attempts and slots[0].last_chance(job):
            open_to = candidates(job, slots)
            slot = min(open_to, key=_seconds_left) if open_to else None
            if slot in left:
                if not slot.jobs and slot.has_room:
                    return job, slot
                left.remove(slot)  # Nothing joins: the job gets it for itself when it is empty.
        elif rooms := _rooms(job, slots, left):
            return job, _best(job, rooms)
        if not left:
            break
    return None


def candidates(job: Job, slots: Sequence[EngineSlot]) -> list[EngineSlot]:
    """Return the slots with the model of ``job`` in memory that it may run on.

    They have the memory for it; if no slot has, each engine may try. A job that lost an
    engine runs where few ended in a row: one that keeps ending must not use up the attempts of
    a job that another one can finish. Only for its last attempt a single end counts, too:
    before, it is better to run than to wait.
    """
    if len(slots) == 1:
        return [slot for slot in slots if slot.holds(job)]
    live = [slot for slot in slots if not slot.closed]
    fitting = [slot for slot in live if slot.fits(job.request)]
    ready = [slot for slot in fitting or live if slot.holds(job) and not slot.engine.late]
    if job.attempts and ready:
        ignored = 0 if slots[0].last_chance(job) else 1
        fewest = max(ignored, min(slot.circuit.crashes for slot in ready))
        ready = [slot for slot in ready if slot.circuit.crashes <= fewest]
    return ready


def bypass(
    job: Job, slots: Sequence[EngineSlot], changed: Iterable[EngineSlot]
) -> EngineSlot | None:
    """Return a full slot that the next job is short enough to join; None for no such slot.

    Only those of ``changed`` are looked at.
    """
    takers = [slot for slot in changed if slot.takes_bypass(job) and not slot.engine.late]
    if not takers:
        return None
    open_to = candidates(job, slots)
    if any(slot.has_room for slot in open_to):
        return None  # It is about to start there.
    return next((slot for slot in takers if slot in open_to), None)


def nearest(slots: Sequence[EngineSlot]) -> EngineSlot:
    """Return the slot that works, or is nearest to it."""
    found = slots[0]
    best = _distance(found)
    for slot in slots:
        if not any(best):
            break
        if (distance := _distance(slot)) < best:
            found, best = slot, distance
    return found


def _distance(slot: EngineSlot) -> tuple[bool, ...]:
    return slot.closed, not slot.ready, slot.circuit.open, slot.engine.late


def _rooms(job: Job, slots: Sequence[EngineSlot], free: Collection[EngineSlot]) -> list[EngineSlot]:
    """Return those of the ``free`` slots that ``job`` may join now; of many, some with few jobs."""
    if len(free) > LOOKED_AT:
        few = nsmallest(LOOKED_AT, free, key=lambda slot: (len(slot.jobs), slot.number))
        if rooms := _open_to(job, slots, few):
            return rooms
    return _open_to(job, slots, free)


def _open_to(
    job: Job, slots: Sequence[EngineSlot], free: Collection[EngineSlot]
) -> list[EngineSlot]:
    """Return those of the ``free`` slots that ``job`` may join now; see ``candidates``."""
    rooms = [slot for slot in free if slot.has_room_for(job)]
    if not rooms or len(slots) == 1:
        return rooms
    if job.attempts:
        allowed = candidates(job, slots)
        return [slot for slot in rooms if slot in allowed]
    fitting = [slot for slot in rooms if slot.fits(job.request)]
    if not fitting and not any(slot.fits(job.request) for slot in slots if not slot.closed):
        return rooms
    return fitting


def _best(job: Job, rooms: Sequence[EngineSlot]) -> EngineSlot:
    """Return the slot that is best for ``job``: an idle one, a fast one, one with like work.

    Images of one size share a step, and others take turns; so a batch of images like the job's
    is worth a delay, but not more than the job itself takes.
    """
    if idle := [slot for slot in rooms if not slot.jobs]:
        fastest = min(slot.estimate.pixel_step for slot in idle)
        equal = (slot for slot in idle if slot.estimate.pixel_step <= AS_FAST * fastest)
        return min(equal, key=lambda slot: slot.number)
    if len(rooms) == 1:
        return rooms[0]
    left = {slot: _seconds_left(slot) for slot in rooms}
    first = min(rooms, key=lambda slot: (left[slot], slot.number))
    most = left[first] + first.estimate.seconds([job])
    like = [slot for slot in rooms if left[slot] <= most and slot.runs_like(job)]
    return min(like or [first], key=lambda slot: (left[slot], slot.number))


def _seconds_left(slot: EngineSlot) -> float:
    return slot.estimate.seconds(slot.jobs.values())
