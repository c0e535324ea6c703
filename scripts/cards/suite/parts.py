"""The parts of the benchmark of a GPU: what each is given, what it tells, how long it may take.

Only the standard library is imported here: packages may not be unpacked yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Part:
    """One question to the machine."""

    name: str
    """Of its module, too, which has a function ``run(task, tell)``."""
    title: str
    seconds: float
    """Kept for it of nine minutes; what the parts before it left over is added."""


PARTS: Final = (
    Part(name="machine", title="Machine and versions", seconds=60),
    Part(name="rows", title="Engine and plain pipeline under a memory limit", seconds=185),
    Part(name="shortage", title="Out of memory and recovery", seconds=80),
    Part(name="batches", title="Batches of one size", seconds=80),
    Part(name="service", title="The service: health and GPU metrics", seconds=50),
    Part(name="parity", title="GPU and CPU images", seconds=75),
)
"""In the order in which they run: the most wanted figures first."""

MINUTES: Final = 9.0
"""For which the seconds of the parts are meant; other limits scale them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the process of a part is told: plain values that cross as JSON."""

    part: str
    folder: str
    """For files that go at the end; ``images/`` in it is shown."""
    model: str
    on_cpu: bool
    vram: float
    seconds: float
    """Until it is ended."""

    @property
    def kind(self) -> str:
        """What computes: ``gpu`` or ``cpu``."""
        return "cpu" if self.on_cpu else "gpu"

    def settings(self, **more: str) -> dict[str, str]:
        """Return settings of the service: the model, where it computes, and those of the part."""
        where = {"DEVICE": "cuda", "DTYPE": "float16"}
        if self.on_cpu:
            where = {"DEVICE": "cpu", "DTYPE": "float32"}
        return {"MODEL_ID": self.model, "MAX_CONCURRENT_REQUESTS": "1", **where, **more}

    def images(self, name: str) -> Path:
        """Return a folder for images, of which the first is shown at the end."""
        folder = Path(self.folder) / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(kw_only=True)
class Report:
    """What a part has found so far."""

    table: list[Sequence[str]] = field(default_factory=list)
    """Its first row is the head."""
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    """Why the part failed, or a row of it; empty if it did not."""

    def fail(self, reason: str) -> None:
        """Add a reason."""
        self.failure = "; ".join(filter(None, [self.failure, reason]))


Tell = Callable[[Report], object]
"""Called as often as there is something new: what was told last stays if the part is cut off."""
