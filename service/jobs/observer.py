"""Who follows the jobs of a dispatcher."""

from service.core.events import Previewed
from service.jobs.job import Job


class Observer:
    """Called by the dispatcher, on the event loop; every method returns at once.

    This one follows no job.
    """

    def keeps(self, job: Job) -> bool:  # noqa: ARG002 - it keeps none
        """Return whether a job outlives the process, so that a later start may run it."""
        return False

    def promised(self, job: Job) -> bool:  # noqa: ARG002 - it keeps none
        """Return whether a job is run though no client waits for it."""
        return False

    def begun(self, job: Job) -> None:
        """Note that a job joined a batch."""

    def adopted(self, job: Job) -> None:
        """Note that a job that waited is in a batch, which it never left."""

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Note that a job did a step, and needs about so many seconds more."""

    def previewed(self, job: Job, preview: Previewed) -> None:
        """Take a small version of an unfinished image."""

    def requeued(self, job: Job, *, counted: bool = True) -> None:
        """Note that a job waits again: it lost its engine, or its attempt was none that counts."""

    def moved(self) -> None:
        """Note that the order of the waiting jobs changed."""

    def drawn(self, job: Job) -> bool:  # noqa: ARG002 - it keeps none
        """Take finished images; return whether the job ends only when they are kept."""
        return False

    def ended(self, job: Job) -> None:
        """Note that a job is over, whichever way."""
