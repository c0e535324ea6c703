"""A drill from its start to its end, whichever end that is."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psutil

from scripts.drill.wait import TooLateError

Value = TypeVar("Value")

INTERRUPTED = 130

Work = Callable[[Path], Coroutine[Any, Any, Value]]


def carried_out(name: str, folder: Path | None, work: Work[Value]) -> Value:
    """Do a drill in a folder, a temporary one if None, and leave no process behind.

    Raises:
        SystemExit: it was interrupted, or what it waited for did not come.

    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as temporary:
            place = (folder or Path(temporary)).resolve()
            place.mkdir(parents=True, exist_ok=True)
            return asyncio.run(_cancellable(work(place)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(INTERRUPTED) from None
    except TooLateError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        # The last net, for a second Ctrl-C in the midst of the first one's work.
        for child in psutil.Process().children(recursive=True):
            child.kill()


async def _cancellable(work: Coroutine[Any, Any, Value]) -> Value:
    """Let SIGTERM end the drill as Ctrl-C does, also where a shell ignores that for its jobs."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in it
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await work
