"""Condition for one short job to join a full batch of long ones."""

from collections.abc import Iterable
from typing import Final

from service.core.work import places, work
from service.jobs.job import Job

SHORTER: Final = 2
"""So many times the work of the short job must be left of each running one: for less, the
place that becomes free soon is worth waiting for."""


def may_bypass(job: Job, running: Iterable[Job]) -> bool:
    """Return whether a job of one image is so short that the batch may have one more.

    Its steps then take turns with those of the batch, in the order of ``order.next_batch``:
    it waits for a few steps instead of for the end of a long job, and what it delays them by
    is no more than half of what each still has to do. One job at a time may do so, so that
    the engine holds at most one image more than fit into a step.
    """
    if places(job.request) > 1:
        return False
    own = SHORTER * work(job.request)
    return all(
        own <= work(other.request, steps_done=other.steps_done) // other.request.num_images
        for other in running
    )
