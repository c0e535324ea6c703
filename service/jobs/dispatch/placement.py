"""Which engine slot runs which waiting job."""

from collections.abc import Iterable, Sequence

from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job

Start = tuple[Job, EngineSlot]


def next_start(waiting: Iterable[Job], slots: Sequence[EngineSlot]) -> Start | None:
    """Return the first waiting job for which a slot has room, and that slot.

    A job that has to wait for one slot does not keep the others from working: the jobs after
    it may start there.
    """
    free = [slot for slot in slots if slot.has_room]
    for job in waiting if free else ():
        if job.held:
            continue
        open_to = candidates(job, slots)
        if open_to and open_to[0].last_chance(job):
            slot = min(open_to, key=_seconds_left)
            if slot in free:
                if not slot.jobs:
                    return job, slot
                free.remove(slot)  # Nothing joins: the job gets it for itself when it is empty.
        elif rooms := [slot for slot in open_to if slot in free and slot.has_room_for(job)]:
            return job, min(rooms, key=_seconds_left)
        if not free:
            break
    return None


def candidates(job: Job, slots: Sequence[EngineSlot]) -> list[EngineSlot]:
    """Return the slots with the model of ``job`` in memory that it may run on.

    They have the memory for it; if no slot has, each engine may try. A job that lost an
    engine runs where the fewest ended in a row: one that keeps ending must not use up the
    attempts of a job that another one can finish.
    """
    if len(slots) == 1:
        return [slot for slot in slots if slot.holds(job)]
    live = [slot for slot in slots if not slot.closed]
    fitting = [slot for slot in live if slot.lack(job.request) is None]
    ready = [slot for slot in fitting or live if slot.holds(job)]
    if job.attempts and ready:
        fewest = min(slot.circuit.crashes for slot in ready)
        ready = [slot for slot in ready if slot.circuit.crashes == fewest]
    return ready


def bypass(job: Job, slots: Sequence[EngineSlot]) -> EngineSlot | None:
    """Return a full slot that the next job is short enough to join; None for no such slot."""
    if not any(slot.takes_bypass(job) for slot in slots):
        return None
    open_to = candidates(job, slots)
    if any(slot.has_room for slot in open_to):
        return None  # It is about to start there.
    return next((slot for slot in open_to if slot.takes_bypass(job)), None)


def nearest(slots: Sequence[EngineSlot]) -> EngineSlot:
    """Return the slot that works, or is nearest to it."""
    return min(
        slots, key=lambda slot: (slot.closed, not slot.ready, slot.circuit.open, slot.engine.late)
    )


def _seconds_left(slot: EngineSlot) -> float:
    return slot.estimate.seconds(slot.jobs.values())
