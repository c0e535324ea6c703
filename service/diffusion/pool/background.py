"""Work on a thread of its own, waited for between the steps of others."""

import contextvars
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from threading import Thread
from typing import Final, TypeVar

from service.core.stage import Stage
from service.diffusion.loop.step_loop import Fault, no_fault
from service.errors import ModelError

T = TypeVar("T")
Waiting = Generator[None, None, T]
"""Yields while it waits."""

REST_SECONDS: Final = 0.05
"""Between two looks at commands with nothing else to do."""


class Background:
    """Reads models and moves weights on daemon threads, for which no process waits at its end.

    Work that takes longer than ``most_seconds`` is given up, but for the time in which a model is
    fetched: a network decides how long that takes. ``fault`` is called before a model is read.
    """

    def __init__(self, *, most_seconds: float, fault: Fault = no_fault) -> None:
        self._most = most_seconds
        self._fault = fault
        self._running: list[Future[object]] = []

    @property
    def active(self) -> bool:
        """Whether any thread works, one that was given up included."""
        self._running = [each for each in self._running if not each.done()]
        return bool(self._running)

    def rest(self) -> None:
        """Wait a little for what runs."""
        if self.active:
            wait(self._running, timeout=REST_SECONDS)

    def run(self, work: Callable[[Fault], T]) -> Waiting[T]:
        """Do some work; it is given what to call at its stages.

        Raises:
            ModelError: it takes too long.
            BaseException: what the work raises.

        """
        future: Future[T] = Future()
        fetching, since = False, time.monotonic()

        def begin(stage: Stage, images: int) -> None:
            nonlocal fetching, since
            fetching, since = stage == Stage.FETCH, time.monotonic()
            if stage == Stage.LOAD:
                self._fault(stage, images)

        def do() -> None:
            try:
                done = work(begin)
            except BaseException as error:  # noqa: BLE001 - whoever waits for it hears of it
                future.set_exception(error)
            else:
                future.set_result(done)

        self._running.append(future)  # type: ignore[arg-type] # only its end is looked at
        # Lines of the log name the engine on its threads, too.
        in_context = contextvars.copy_context().run
        Thread(target=in_context, args=(do,), name="models", daemon=True).start()
        while not future.done():
            if not fetching and time.monotonic() - since > self._most:
                raise ModelError(
                    f"It was not loaded within {self._most:g} s: look at the disk that holds it.",
                    transient=True,
                )
            yield
        # It may be gone already: whoever asked whether any thread works has left it out.
        self._running = [each for each in self._running if each is not future]
        return future.result()
