"""Threads for calls that block: a closed list of executors, none of which can delay another.

asyncio's default executor has few threads for everything, and joins them without a limit at
the end. Nothing here uses it: a name server that does not answer takes the threads that look
names up, and no others.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from service.errors import Overloaded
from service.system.fair_line import FairLine, Limits, Place

P = ParamSpec("P")
T = TypeVar("T")

CORES: Final = os.cpu_count() or 1
LINGER_SECONDS: Final = 10.0
"""How long a thread without work stays."""

RETRY_SECONDS: Final = 5.0

Call = tuple["Future[Any]", Callable[[], Any]]


class Executor:
    """Threads for one kind of blocking call, used by owners (API keys) in turns.

    The threads are daemons: a call that never returns holds up neither the other executors nor
    the end of the process.
    """

    def __init__(self, name: str, limits: Limits, *, waiting: int = 1_000) -> None:
        self.name = name
        self.limits = limits
        self._longest = waiting
        self._line: FairLine[Call] = FairLine(limits)
        self._changed = threading.Condition()
        self._ready: deque[Place[Call]] = deque()
        """Calls that have a place and no thread yet."""
        self._threads = 0

    @property
    def busy(self) -> int:
        """Threads with a call."""
        with self._changed:
            return self._line.held

    @property
    def waiting(self) -> int:
        """Calls without a thread."""
        with self._changed:
            return self._line.waiting

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` on a thread for the service itself."""
        return await self.run_for("", partial(function, *args, **kwargs))

    async def run_for(
        self,
        owner: str,
        function: Callable[[], T],
        *,
        group: str = "",
        seconds: float | None = None,
    ) -> T:
        """Call ``function`` on a thread, in the turn of ``owner`` and of its ``group``.

        A caller that is cancelled, or that has waited for ``seconds``, goes: its call does not
        begin any more, or ends unheard.

        Raises:
            Overloaded: too many calls of the owner wait.
            TimeoutError: it took longer than ``seconds``.

        """
        threads: Any = _Turn(self, owner, group)
        call = partial(copy_context().run, function)
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(threads, call)

    def submit(self, owner: str, group: str, function: Callable[[], T]) -> "Future[T]":
        """Let a call wait for its turn, from any thread.

        Raises:
            Overloaded: too many calls of the owner wait.
            RuntimeError: there is no thread, and none can be started.

        """
        future: Future[T] = Future()
        call = (future, function)
        with self._changed:
            if self._line.waiting_of(owner) >= self._longest:
                raise Overloaded(
                    f"{self._longest} calls of this key wait for a thread ({self.name}); send"
                    " fewer requests at a time.",
                    retry_after=RETRY_SECONDS,
                )
            self._line.put(owner, group, call)
            self._hand_out()
        future.add_done_callback(lambda done: self._left(owner, call) if done.cancelled() else None)
        return future

    def _left(self, owner: str, call: Call) -> None:
        with self._changed:
            self._line.discard(owner, call)

    def _hand_out(self) -> None:
        """Give every free place to a call, and every such call a thread."""
        while (place := self._line.take()) is not None:
            self._ready.append(place)
            if self._threads < self._line.held:
                self._start()
            self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"sd-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # The system gives no more; another thread will take the call.
            if not self._threads:
                self._line.give_back(self._ready.pop())
                raise
        else:
            self._threads += 1

    def _run(self) -> None:
        """Make one call after the other, until none has come for a while."""
        while True:
            with self._changed:
                while not self._ready:
                    if not self._changed.wait(LINGER_SECONDS) and not self._ready:
                        self._threads -= 1
                        return
                place = self._ready.popleft()
            tell = _called(*place.item)
            with self._changed:
                self._line.give_back(place)
                self._hand_out()
            tell()  # Who has the result holds no place any more.
            del place, tell  # A result must not live until the next call.


@dataclass(frozen=True)
class _Turn:
    """One owner's part of an executor, as the event loop asks for one."""

    executor: Executor
    owner: str
    group: str

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        return self.executor.submit(self.owner, self.group, function)


def _called(future: "Future[Any]", function: Callable[[], Any]) -> Callable[[], None]:
    """Call, unless nobody waits any more; return what tells who waits."""
    if not future.set_running_or_notify_cancel():
        return lambda: None
    try:
        return partial(future.set_result, function())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        return partial(future.set_exception, error)


def _of_cores(name: str, threads: int) -> Executor:
    """Return an executor for calls that compute: more threads than cores are no faster."""
    return Executor(name, Limits(most=threads, each=threads, alike=threads))


IMAGES: Final = _of_cores("images", max(2, CORES))
"""Encodes finished images."""

CONVERSIONS: Final = _of_cores("conversions", max(1, CORES // 2))
"""Converts images that were fetched again, and previews."""

UPLOADS: Final = _of_cores("uploads", 1)
"""Reads and checks images that requests bring: one at a time, so that memory stays bounded."""

STORAGE: Final = Executor("storage", Limits(most=8, each=4, alike=4, spare=100))
"""Reads and writes files of images."""

NAMES: Final = Executor("names", Limits(most=32, each=8, alike=2, spare=100), waiting=200)
"""Looks up host names of webhooks."""

FILES: Final = Executor("files", Limits(most=2, each=2, alike=2))
"""Reads files of the operator, such as the keys."""

ENGINE: Final = Executor("engine", Limits(most=8, each=8, alike=8))
"""Starts engine processes and waits for their end."""

HASHES: Final = Executor("hashes", Limits(most=2, each=1, alike=1))
"""Reads the weights of models for their hashes, one model at a time."""

UPKEEP: Final = Executor("upkeep", Limits(most=2, each=2, alike=2))
"""Gives memory back, and sends the last spans."""

EXECUTORS: Final = (
    *(IMAGES, CONVERSIONS, UPLOADS, STORAGE, NAMES),
    *(FILES, ENGINE, HASHES, UPKEEP),
)
