"""The table of metrics."""

import re
from itertools import chain

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import OOM_STAGES, OUTCOMES, REFUSALS, STAGES, Metrics


@pytest.fixture
def families():
    """Return what a scrape of a service that did nothing yet reads, by name."""
    text = generate_latest(Metrics().registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family, label: str) -> dict[str, float]:
    return {
        s.labels[label]: s.value for s in family.samples if s.name.endswith(("_total", "_count"))
    }


def test_every_metric_is_ours_and_says_what_it_counts(families):
    """One prefix, base units, and a sentence of help."""
    for name, family in families.items():
        assert re.fullmatch(r"sd_[a-z_]+", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|mb|mib|gb|percent)(_|$)", name)


def test_known_label_sets_start_at_zero(families):
    """increase() never sees an event that gave birth to its series."""
    assert values(families["sd_jobs"], "outcome") == dict.fromkeys(OUTCOMES, 0)
    assert values(families["sd_requests_refused"], "reason") == dict.fromkeys(REFUSALS, 0)
    assert values(families["sd_oom"], "stage") == dict.fromkeys(OOM_STAGES, 0)
    assert values(families["sd_stage_duration_seconds"], "stage") == dict.fromkeys(STAGES, 0)


def test_no_series_is_made_by_users(families):
    """Prompts, request ids and raw paths are no labels."""
    samples = chain.from_iterable(family.samples for family in families.values())
    labels = set(chain.from_iterable(sample.labels for sample in samples))
    allowed = {"le", "outcome", "reason", "stage", "version", "kind", "dtype", "device", "model_id"}
    assert labels <= allowed


def test_two_services_in_one_process_have_their_own_metrics():
    """Nothing is registered globally."""
    first, second = Metrics(), Metrics()
    first.images.inc()
    assert second.registry.get_sample_value("sd_images_total") == 0
