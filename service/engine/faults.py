"""Faults on purpose, for tests and drills: a service is only as good as its worst hour.

``FAULT_FILE`` names a JSON file that the engine reads again whenever it changes::

    {"oom": {"denoise": 2}, "oom_images": 1, "step_seconds": 0.5, "hang": false}

``oom``: how many of the next calls of a stage run out of memory, counted from the moment the
file changed; ``oom_images``: only calls for at least so many images at once.
``step_seconds``: how much longer every denoising step takes; ``load_seconds``: a model that is
loaded next to the first one, which is the stage ``load``. ``hang``: the next stage does not return
while the file says so. A file that is absent or empty means no fault.
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import structlog

from service.core.stage import LOOP_STAGES, Stage
from service.system import regular_file

LARGEST_FILE: Final = 100_000
"""Bytes."""

log = structlog.get_logger(__name__)

HANG_POLL_SECONDS: Final = 0.05
LONGEST_STEP: Final = 3600.0


class FaultInjector:
    """What goes wrong next; called with a stage and its number of images before the stage."""

    def __init__(
        self,
        *,
        oom: dict[str, int] | None = None,
        oom_images: int = 1,
        step_seconds: float = 0.0,
        load_seconds: float = 0.0,
        hang: bool = False,
    ) -> None:
        unknown = sorted(set(oom or {}) - {*LOOP_STAGES, Stage.LOAD})
        if unknown:
            raise ValueError(f"oom: no such stage: {', '.join(unknown)}")
        if not all(type(count) is int and count >= 0 for count in (oom or {}).values()):
            raise ValueError("oom: must be whole numbers by stage")
        if type(oom_images) is not int or oom_images < 1:
            raise ValueError("oom_images: must be a whole number above 0")
        for name, seconds in (("step_seconds", step_seconds), ("load_seconds", load_seconds)):
            if type(seconds) not in {int, float} or not 0 <= seconds <= LONGEST_STEP:
                raise ValueError(f"{name}: must be from 0 to {LONGEST_STEP:g}")
        if type(hang) is not bool:
            raise ValueError("hang: must be true or false")
        self.oom = Counter(oom or {})
        self.oom_images = oom_images
        self.seconds = {Stage.DENOISE: step_seconds, Stage.LOAD: load_seconds}
        self.hang = hang

    def __call__(self, stage: Stage, images: int) -> None:
        """Let the stage go on, later or not at all.

        Raises:
            MemoryError: this call is one of those that run out of memory.

        """
        if seconds := self.seconds.get(stage):
            time.sleep(seconds)
        if self.oom[stage] > 0 and images >= self.oom_images:
            self.oom[stage] -= 1
            raise MemoryError(f"{stage} of {images} images: out of memory on purpose")


class FaultFile:
    """The faults that a file names, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._faults = FaultInjector()
        log.warning("faults_enabled", path=str(path))

    def __call__(self, stage: Stage, images: int) -> None:
        """Do what the file says about this stage.

        Raises:
            MemoryError: this call is one of those that run out of memory.

        """
        self._refresh()
        while self._faults.hang:
            time.sleep(HANG_POLL_SECONDS)
            self._refresh()
        self._faults(stage, images)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size
            if seen == self._seen:
                return
            self._seen = seen
            text = regular_file.read(self._path, LARGEST_FILE)[0].decode()
            self._faults = FaultInjector(**_checked(json.loads(text or "{}")))
        except FileNotFoundError:
            self._seen, self._faults = None, FaultInjector()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            # Written half, or by hand: a drill goes on without faults and its log says so.
            self._faults = FaultInjector()
            log.warning("fault_file_unreadable", path=str(self._path), reason=str(error))
        else:
            log.warning("faults_changed", faults=text)


def _checked(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError("it must hold a JSON object")
    return given
