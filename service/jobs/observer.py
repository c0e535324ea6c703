"""Who wants to know how jobs fare, beside those who wait for them."""

from typing import Protocol

from service.diffusion.generation import Previewed
from service.jobs.job import Job


class Observer(Protocol):
    """Told by the consumer, on the event loop; every method returns at once."""

    def keeps(self, job: Job) -> bool:
        """Say whether it outlives the process, so that a later start may run it."""

    def begun(self, job: Job) -> None:
        """Hear that it joined a batch."""

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Hear that it did a step, and needs about so many seconds more."""

    def previewed(self, job: Job, preview: Previewed) -> None:
        """See how far its picture is."""

    def requeued(self, job: Job) -> None:
        """Hear that it lost its engine and waits again."""

    def moved(self) -> None:
        """Hear that the line of waiting jobs changed."""

    def ended(self, job: Job) -> None:
        """Hear that it is over, whichever way."""


class Nobody:
    """Wants to know nothing."""

    def keeps(self, job: Job) -> bool:  # noqa: ARG002 - it keeps none
        """Keep nothing."""
        return False

    def begun(self, job: Job) -> None:
        """Pass over it."""

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Pass over it."""

    def previewed(self, job: Job, preview: Previewed) -> None:
        """Pass over it."""

    def requeued(self, job: Job) -> None:
        """Pass over it."""

    def moved(self) -> None:
        """Pass over it."""

    def ended(self, job: Job) -> None:
        """Pass over it."""
