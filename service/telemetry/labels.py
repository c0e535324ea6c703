"""Buckets and label values of the metrics: what is known beforehand starts at 0."""

from typing import Final

from service.core.outcome import Outcome, UploadOutcome
from service.core.stage import LOOP_STAGES, Stage

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300)
WAIT_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STAGE_SECONDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 15, 20, 30, 60, 120),
)
STEP_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2, 5, 10)
BATCH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
OCCUPANCY: Final = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)
IMAGES: Final = (1, 2, 3, 4, 8, 16, 32, 64)
STEPS: Final = (1, 2, 4, 6, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100)
PIXELS: Final = (256**2, 384**2, 512 * 384, 512**2, 768 * 512, 640**2, 768**2, 1024**2, 2048**2)

OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
JOB_ERRORS: Final = (
    "out_of_memory",
    "engine_crashed",
    "generation_failed",
    "validation_error",
    "model_not_found",
    "model_unavailable",
    "store_unavailable",
    "storage_full",
    "storage_unavailable",
    "input_lost",
    "internal_error",
)
CALLER_FAULTS: Final = (
    *("validation", "host", "origin", "auth", "rate"),
    *("connections", "address", "streams", "uploads"),
)
"""Refusals that are the callers' doing, one or all together."""

SERVICE_FAULTS: Final = (
    *("queue_full", "model_unavailable", "memory", "storage_full"),
    *("circuit_open", "cluster_unreachable"),
)
"""Refusals that are the service's fault, and count against the availability objective."""

REFUSALS: Final = (*CALLER_FAULTS, *SERVICE_FAULTS, "draining")
NATIVE: Final = "native"
OPENAI: Final = "openai"
SDAPI: Final = "sdapi"
PAGE: Final = "page"
CLI: Final = "cli"
APIS: Final = (NATIVE, OPENAI, SDAPI, PAGE, CLI)
"""The API that a request came through; what fits no route is answered as the native one does."""

CLIENTS: Final = (PAGE, CLI)
"""Clients of the native API that are counted apart from it."""

FIRST_ENGINE: Final = "0"
"""The name of the first engine slot, and of the only one where there are no others."""

ANONYMOUS: Final = "anonymous"
OTHER_KEY: Final = "other"
"""Jobs of keys that are not in force any more."""

STAGES: Final = (*LOOP_STAGES, Stage.IMAGE_ENCODE)

RESTART_REASONS: Final = (
    *("stalled", "killed", "crashed", "exited"),
    *("not_started", "load_failed", "garbage", "lost"),
)
CIRCUIT_OPEN: Final = "circuit_open"
"""The state of an engine that keeps ending, until it finishes a job."""

ENGINE_STATES: Final = ("stopped", "loading", "ready", "restarting", "failed", CIRCUIT_OPEN)
GPU_USES: Final = (
    "useful",
    *(outcome for outcome in OUTCOMES if outcome != Outcome.SUCCEEDED),
    "lost",
    "retried",
)
"""``lost`` went down with an engine, ``retried`` ran out of memory and was done again."""

ADAPTER_OUTCOMES: Final = ("loaded", "failed")
MODEL_OUTCOMES: Final = ("disk", "parked", "failed")
"""``disk`` and ``parked`` are where a model was loaded from."""

SIZE_CLASSES: Final = {"small": 384**2, "medium": 512**2, "large": 768**2}
"""Most pixels of an image in each class; beyond the last it is ``huge``."""

UPLOADS: Final = tuple(outcome.value for outcome in UploadOutcome)
STORE_FAILURES: Final = (
    *("locked", "full", "damaged", "forbidden", "failing"),
    *("replaced", "unreachable", "other"),
)


def size_class(pixels: int) -> str:
    """Return the class of an image of so many pixels."""
    return next((name for name, most in SIZE_CLASSES.items() if pixels <= most), "huge")


SIZES: Final = (*SIZE_CLASSES, "huge")
