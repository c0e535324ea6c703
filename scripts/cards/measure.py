"""One measurement in a process of its own, watched from outside."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pynvml

from scripts.benchmark.rows import Row
from scripts.cards import process
from service.config.setting import environment_name
from service.config.table import Config
from service.gpu import nvml

ENGINE: Final = "engine"
PIPELINE: Final = "pipeline"

OTHERS: Final = 10_000
"""Seeds of the images that share a batch with a measured one begin here."""

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, "-m", "scripts.cards.work")
KEPT: Final = frozenset({"CUDA_VISIBLE_DEVICES", "MODEL_CACHE_DIR", "TORCH_THREADS"})
"""Settings of the caller's that count here, too: which card, where the models are, which cores."""

LIMIT_SECONDS: Final = 900.0
"""An offloaded SDXL image on an old card takes minutes; beyond this something hangs."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Images to make, after one that is not counted; settings come by the environment."""

    contender: str
    """``engine``: the service's own, as its process runs it; ``pipeline``: plain diffusers."""
    row: Row
    rounds: int
    batch: int = 1
    """Images that are asked for at the same time, in each round."""
    folder: str = ""
    """Where the first image of each round goes, by its seed; empty for nowhere."""

    def seeds(self, number: int) -> list[int]:
        """Return the seeds of one round, the measured image's first."""
        return [number, *(OTHERS + number * self.batch + other for other in range(1, self.batch))]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it; bytes and seconds, 0 where nothing was measured."""

    device: str = ""
    gpu: bool = False
    dtype: str = ""
    torch: str = ""
    load_seconds: float = 0.0
    seconds: tuple[float, ...] = ()
    """For each image, from order to PNG, of each round: those of a batch share its time."""
    step_seconds: float = 0.0
    """Median, of all images of a step together; of the engine only."""
    allocated: int = 0
    reserved: int = 0
    """Most that torch's allocator gave out, and held, on the GPU."""
    host: int = 0
    """Most of the resident set."""
    process: int = 0
    """Most that the whole process took of the GPU, by the driver: CUDA's own part included."""
    process_by: str = ""
    """``process`` where the driver names it, ``card`` where only the card's use tells."""
    rungs: tuple[str, ...] = ()
    """What the engine did because memory ran out."""
    failure: str = ""
    """Why there is no figure; empty where there is."""

    @property
    def worked(self) -> bool:
        """Whether images were made."""
        return not self.failure and bool(self.seconds)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what a measuring process is given: no setting of the service but these and KEPT."""
    rows = {environment_name(row) for row in fields(Config)} - KEPT
    kept = {name: value for name, value in os.environ.items() if name not in rows}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        # Before anything looks for GPUs; the order is the driver's, as the engine has it.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "LOG_LEVEL": "ERROR",
        "LOG_FORMAT": "console",
        "DATA_DIR": "",
        **settings,
    }


def run(order: Order, settings: Mapping[str, str], *, seconds: float = LIMIT_SECONDS) -> Measured:
    """Carry an order out and return what was measured; its failure is a result, too."""
    given = environment(settings)
    with tempfile.TemporaryFile() as log, watching(given["CUDA_VISIBLE_DEVICES"]) as watch:
        line, fault = process.run(COMMAND, order, given, seconds=seconds, log=log, watch=watch.look)
        if fault or not line:
            log.seek(0)  # All of it goes to a log, its end into the result.
            print(log.read().decode(errors="replace"), file=sys.stderr)
            return Measured(failure=fault or "it ended without an answer")
    found = msgspec.json.decode(line, type=Measured)
    return replace(found, process=watch.most, process_by=watch.by)


class Watch:
    """Looks at how much of a card one process takes, again and again, by the driver.

    Where the driver does not name processes (in most containers, on Windows), what the card's
    use has grown by stands for it: right as long as nothing else starts there meanwhile.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._before = self._used()
        self._own = self._card = 0

    @property
    def most(self) -> int:
        """The most bytes that were seen, CUDA's context included; 0 where nothing tells."""
        return self._own or self._card

    @property
    def by(self) -> str:
        """Whose figure that is: the ``process``'s or the ``card``'s."""
        return "process" if self._own else "card" if self._card else ""

    def look(self, pid: int) -> None:
        """Take note of what the process takes now."""
        if self._handle is None:
            return
        with suppress(pynvml.NVMLError):
            for each in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if each.pid == pid and each.usedGpuMemory is not None:
                    self._own = max(self._own, int(each.usedGpuMemory))
        self._card = max(self._card, self._used() - self._before)

    def _used(self) -> int:
        with suppress(pynvml.NVMLError):
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used) if self._handle else 0
        return 0


@contextmanager
def watching(visible_devices: str) -> Iterator[Watch]:
    """Hand out a watch of the card that the service would use; without a driver it sees nothing."""
    with ExitStack() as stack:
        handle = None
        with suppress(pynvml.NVMLError):
            stack.enter_context(nvml.driver())
            handle = nvml.find(visible_devices)
        yield Watch(handle)
