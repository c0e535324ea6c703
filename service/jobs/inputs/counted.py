"""What becomes of images that are sent, for the metrics."""

from collections.abc import Callable

from service.core.outcome import UploadOutcome
from service.jobs.inputs.bounds import UploadBounds
from service.telemetry.metrics import Metrics

Count = Callable[[UploadOutcome], None]


def nothing(_outcome: UploadOutcome) -> None:
    """Count nothing."""


def counting(metrics: Metrics, bounds: UploadBounds) -> Count:
    """Show the bounds, and return what counts uploads."""
    metrics.uploads_limit.set(bounds.most)
    metrics.uploads_bytes.set_function(lambda: bounds.held)
    return lambda outcome: metrics.uploads.labels(outcome.value).inc()
