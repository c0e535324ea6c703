"""What a measuring process is told, and what it says: plain values that cross as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

ENGINE: Final = "engine"
PIPELINE: Final = "pipeline"

PROMPT: Final = "A cozy cabin in the woods"
OTHERS: Final = 10_000
"""Seeds of the pictures that share a batch with a measured one begin here."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pictures to make, after one that is not counted; settings come by the environment."""

    contender: str
    """``engine``: the service's own, as its process runs it; ``pipeline``: plain diffusers."""
    width: int
    height: int
    steps: int
    rounds: int
    batch: int = 1
    """Pictures that are asked for at the same time, in each round."""
    folder: str = ""
    """Where the first picture of each round goes, by its seed; empty for nowhere."""

    def seeds(self, number: int) -> list[int]:
        """Return the seeds of one round, the measured picture's first."""
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
    """For each picture, from order to PNG, of each round: those of a batch share its time."""
    step_seconds: float = 0.0
    """Median, of all pictures of a step together; of the engine only."""
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
        """Whether pictures were made."""
        return not self.failure and bool(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """An order with its settings, and what came of it."""

    order: Order
    settings: dict[str, str] = field(default_factory=dict)
    measured: Measured


def to_json(value: Order | Measured) -> str:
    """Return one line."""
    return json.dumps(asdict(value))


def order_from(text: str) -> Order:
    """Read an order."""
    return Order(**json.loads(text))


def measured_from(text: str) -> Measured:
    """Read a result."""
    found: dict[str, Any] = json.loads(text)
    for name in ("seconds", "rungs"):
        found[name] = tuple(found.get(name, ()))
    return Measured(**found)
