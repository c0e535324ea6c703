"""How far a download is: a bar for a person, lines for a log; imports no torch."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from tqdm import tqdm

log = structlog.get_logger(__name__)

BAR_SECONDS: Final = 0.5
LOG_SECONDS: Final = 30.0


@contextmanager
def progress(name: str, total: int, held: Callable[[], int], *, shown: bool) -> Iterator[None]:
    """Show a bar of bytes, those of an earlier try included, or log them, until it is over."""

    def here() -> int:
        return min(held(), total)

    def told() -> None:
        size = here()
        percent = 100 * size // max(total, 1)
        log.info("model_download_continues", model_id=name, bytes=size, of=total, percent=percent)

    if not shown:
        with _every(LOG_SECONDS, told):
            yield
        return
    with tqdm(
        total=total, initial=here(), unit="B", unit_scale=True,
        unit_divisor=1024, desc=name, file=sys.stderr,
    ) as bar:  # fmt: skip
        with _every(BAR_SECONDS, lambda: bar.update(here() - bar.n)):
            yield
        bar.update(total - bar.n)


@contextmanager
def _every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, in a thread of its own, until this is left."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            act()

    watcher = threading.Thread(target=repeat, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
