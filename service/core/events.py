"""What the step loops and the models in memory report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from service.core.capacity import AdapterPlace, MemoryUse
from service.core.image import RawImage
from service.core.model import ModelInfo
from service.core.stage import OomRung, Stage, StageTimes


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A denoising step of one batch is done, or several of equal batches one after the other."""

    progress: dict[str, int] = field(default_factory=dict)
    """Steps done so far by job id, averaged down over a job's images."""
    batch_size: int
    """Images that moved in a step, each as many times as it counts, rounded up."""
    pixels: int
    """Width times height, summed over those images."""
    steps: int = 1
    """How many are told of here; the two counts above are of one step."""
    seconds: float
    """Of all these steps."""
    shares: dict[str, float] = field(default_factory=dict)
    """Those seconds by job id, divided evenly over the images."""
    epochs: dict[str, int] = field(default_factory=dict)
    """The attempts that moved, by job id."""
    memory: MemoryUse = field(default=MemoryUse())
    model_id: str = ""
    """Model that drew; empty for the default one."""


@dataclass(frozen=True, kw_only=True)
class AttemptEvent:
    """What happened to one attempt at a job."""

    job_id: str
    epoch: int
    """Number of the attempt, as ``Generate`` gave it."""


@dataclass(frozen=True, kw_only=True)
class Previewed(AttemptEvent):
    """A small image of an unfinished one: 8-bit RGB rows, a pixel per latent cell."""

    step: int
    """Steps done when it was made."""
    width: int
    height: int
    pixels: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class JobFinished(AttemptEvent):
    """All images of a job are made."""

    images: tuple[RawImage, ...]
    times: StageTimes = field(default=StageTimes())
    memory: MemoryUse = field(default=MemoryUse(), compare=False)
    """After the decode, which takes the most."""
    prompt_tokens: int = 0
    """Tokens of the prompt, those that the text encoder could not read included."""
    prompt_tokens_cut: int = 0
    """Tokens of the prompt that the text encoder could not read."""
    adapter_hashes: Mapping[str, str] = field(default_factory=dict)
    """By name the short hash of each adapter's file, as it was when the images were made."""
    embeddings: Mapping[str, str] = field(default_factory=dict)
    """The same of the embeddings that the texts name."""
    interrupted_after: int | None = None
    """Steps done, averaged down over the images, where an interrupt ended it early."""


@dataclass(frozen=True, kw_only=True)
class JobFailed(AttemptEvent):
    """A job ended with an error of the class that ``code`` names in ``service.errors``."""

    code: str
    detail: str
    times: StageTimes = field(default=StageTimes(), compare=False)
    """What it had cost; two reports are the same whatever the clock said."""


@dataclass(frozen=True, kw_only=True)
class JobCancelled(AttemptEvent):
    """A job left the batch because it was told to."""

    steps_done: int = 0
    times: StageTimes = field(default=StageTimes(), compare=False)


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryHit:
    """Memory ran out at a stage, and what is done about it."""

    stage: Stage
    batch_size: int
    rung: OomRung = OomRung.FAIL
    seconds: float = field(default=0.0, compare=False)
    """Work that is lost; no job's ``StageTimes`` hold it."""


@dataclass(frozen=True, kw_only=True)
class BatchCalibrated:
    """The largest batch that gained anything when it was measured."""

    batch: int
    size: int
    """Width and height of the images it was measured with."""
    seconds: Mapping[int, float]
    """Of one step, by the images in it."""
    model_id: str = ""
    """Model that the numbers are of; empty for the default one."""


@dataclass(frozen=True, kw_only=True)
class StepBaseline:
    """How long a step takes, measured before any request came."""

    pixels: int
    """Of one image."""
    images: int
    seconds: float
    model_id: str = ""
    """Model that the numbers are of; empty for the default one."""


@dataclass(frozen=True, kw_only=True)
class AdaptersChanged:
    """Adapters were loaded, could not be, or were evicted since the last report."""

    load_seconds: tuple[float, ...] = ()
    """One for each that was loaded."""
    failures: int = 0
    evictions: int = 0
    held: Mapping[AdapterPlace, int] = field(default_factory=dict)
    """Bytes that adapters take now."""


MOST_STEPS: Final = 1000
"""In one report at most."""

LoopEvent = Stepped | Previewed | JobFinished | JobFailed | JobCancelled | OutOfMemoryHit
"""What the step loop reports."""


class UnloadReason(StrEnum):
    """Why a model left memory."""

    IDLE = "idle"
    """Nobody has asked for it for a while."""
    MEMORY = "memory"
    """Another model needed the room."""
    ASKED = "asked"


@dataclass(frozen=True, kw_only=True)
class ModelEvent:
    """What became of a model that is loaded on demand, or of all that are."""


@dataclass(frozen=True, kw_only=True)
class ModelLoading(ModelEvent):
    """There is room for a model that was asked for, and it is read now."""

    model_id: str
    """As ``LoadModel`` named it."""
    room: bool = True
    """False takes that back: models with jobs are in the way after all."""


@dataclass(frozen=True, kw_only=True)
class ModelLoaded(ModelEvent):
    """Jobs for a model may come."""

    model_id: str
    """As ``LoadModel`` named it."""
    model: ModelInfo
    seconds: float
    """From the first byte to the last trial image; 0 where it was loaded before."""
    parked: bool = False
    """Whether it came from host memory, not from its files."""
    memory: MemoryUse = field(default_factory=MemoryUse)


@dataclass(frozen=True, kw_only=True)
class ModelFailed(ModelEvent):
    """A model cannot be loaded; all others go on."""

    model_id: str
    code: str
    detail: str
    transient: bool = False
    """Asking again may help, as it does where memory is held for a while."""


@dataclass(frozen=True, kw_only=True)
class ModelUnloaded(ModelEvent):
    """A model takes no more jobs; one that comes ends with ``MODEL_NOT_LOADED``."""

    model_id: str
    reason: UnloadReason


@dataclass(frozen=True, kw_only=True)
class ModelsResident(ModelEvent):
    """Models in memory, sent when that has changed: bytes by model.

    On a CPU there is one memory, the host's. A model in host memory only, next to a GPU, is parked.
    """

    device: Mapping[str, int] = field(default_factory=dict)
    host: Mapping[str, int] = field(default_factory=dict)


MODEL_NOT_LOADED: Final = "model_not_loaded"
"""Code of ``JobFailed`` for a job whose model left memory before it came: no work was done."""
