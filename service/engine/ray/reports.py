"""Reports of a host, as far as they are about what the service knows."""

import math
from collections.abc import Collection
from dataclasses import replace

from service.core.events import Stepped
from service.engine.channel import GarbageError
from service.engine.protocol import EngineExited
from service.telemetry.labels import RESTART_REASONS


def narrowed(step: Stepped, jobs: Collection[str]) -> Stepped:
    """Return a step as it is for these jobs alone."""
    return replace(
        step,
        progress={job_id: each for job_id, each in step.progress.items() if job_id in jobs},
        shares={job_id: each for job_id, each in step.shares.items() if job_id in jobs},
        epochs={job_id: each for job_id, each in step.epochs.items() if job_id in jobs},
    )


def check_exit(said: EngineExited) -> None:
    """Pass an end that a child can have.

    Raises:
        GarbageError: none can.

    """
    if said.reason not in RESTART_REASONS or not 0 <= said.restart_seconds < math.inf:
        raise GarbageError("a child ended as none can")
