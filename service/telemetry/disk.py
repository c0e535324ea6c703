"""Space on the file systems that the service writes to, read on a thread of its own."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.registry import Collector

from service.telemetry.definitions import DISK, Family, Values

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 10.0
FRESH_INTERVALS: Final = 3
"""Figures older than so many intervals are no longer shown: the file system hangs."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Bytes of one file system, and when they were read."""

    free: int
    """What this user may still take, which is less than what nobody has taken."""
    size: int
    read_at: float


class DiskSampler:
    """Reads each volume every few seconds.

    ``statvfs`` on a network file system waits for its server, without end when the server
    is gone. Each volume has a thread, so that one does not hold up the others, nor a scrape.
    """

    def __init__(
        self,
        volumes: Mapping[str, Path],
        *,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._volumes = dict(volumes)
        self._interval = interval
        self._clock = clock
        self._stop = threading.Event()
        self._tried = {volume: threading.Event() for volume in volumes}
        self._threads: list[threading.Thread] = []
        self._spaces: dict[str, Space] = {}
        self._failures: dict[str, str] = {}

    @property
    def spaces(self) -> dict[str, Space]:
        """What is known of each volume now; a volume that cannot be read is absent."""
        limit = self._clock() - FRESH_INTERVALS * self._interval
        known = self._spaces.copy().items()
        return {volume: space for volume, space in known if space.read_at >= limit}

    def start(self) -> None:
        """Begin to read."""
        for volume in self._volumes:
            thread = threading.Thread(
                target=self._run, args=(volume,), name=f"disk-{volume}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads, without waiting for a file system that hangs."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self._threads.clear()
        self._spaces.clear()

    def wait_for_reading(self, timeout: float | None = None) -> bool:
        """Block until each volume was tried once; return whether they were."""
        return all(tried.wait(timeout) for tried in self._tried.values())

    def sample(self, volume: str) -> None:
        """Read one volume; one that cannot be read is absent, and said to be once."""
        try:
            figures = os.statvfs(existing(self._volumes[volume]))
        except OSError as error:
            self._spaces.pop(volume, None)
            if str(error) != self._failures.get(volume):
                log.warning("disk_reading_failed", volume=volume, reason=str(error))
            self._failures[volume] = str(error)
            return
        self._failures.pop(volume, None)
        self._spaces[volume] = Space(
            free=figures.f_bavail * figures.f_frsize,
            size=figures.f_blocks * figures.f_frsize,
            read_at=self._clock(),
        )

    def _run(self, volume: str) -> None:
        while not self._stop.is_set():
            self.sample(volume)
            self._tried[volume].set()
            self._stop.wait(self._interval)


class DiskCollector(Collector):
    """Shows at each scrape what the sampler has; it never touches a disk itself."""

    def __init__(self, sampler: DiskSampler) -> None:
        self._sampler = sampler

    def describe(self) -> Iterable[Family]:
        """Return every family there can be, so that a second one of the name is refused."""
        return [definition.family({}) for definition in DISK]

    def collect(self) -> Iterator[Family]:
        """Return the families that have a value now."""
        spaces = self._sampler.spaces
        found: dict[str, Values] = {
            "sd_disk_free_bytes": {(volume,): space.free for volume, space in spaces.items()},
            "sd_disk_size_bytes": {(volume,): space.size for volume, space in spaces.items()},
        }
        for definition in DISK:
            if spaces:
                yield definition.family(found[definition.name])


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there: it will be made in it.

    Raises:
        OSError: the file system does not answer.

    """
    path = path.absolute()
    while True:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if path == path.parent:
                raise
            path = path.parent
        else:
            return path
