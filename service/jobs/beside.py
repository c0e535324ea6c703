"""Letting one short job in beside a full batch of long ones."""

from collections.abc import Iterable
from typing import Final

from service.jobs.job import Job
from service.jobs.work import work

SHORTER: Final = 2
"""So many times the work of the short job must be left of each running one: for less, the
place that becomes free soon is worth waiting for."""


def slips_in(job: Job, running: Iterable[Job]) -> bool:
    """Tell whether a job of one picture is so short that the batch may have one more.

    Its steps then take turns with those of the batch, in the order of ``order.next_batch``:
    it waits for a few steps instead of for the end of a long job, and what it delays them by
    is no more than half of what each still has to do. One job at a time may do so, so that
    the engine holds at most one picture more than fit into a step.
    """
    if job.request.num_images > 1:
        return False
    own = SHORTER * work(job.request)
    return all(
        own <= work(other.request, steps_done=other.steps_done) // other.request.num_images
        for other in running
    )
