"""Samples of the metrics, as tests ask for them."""

from service.telemetry.metrics import Metrics

USUAL = {"engine": "0", "api": "native"}


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return a sample; that of the first engine and of the native API unless others are named."""
    names = {name, *(name.removesuffix(part) for part in ("_bucket", "_sum", "_count"))}
    (known,) = {each.labels for each in metrics.definitions if each.name in names}
    usual = {label: value for label, value in USUAL.items() if label in known}
    return metrics.registry.get_sample_value(name, usual | labels)
