"""The table of metrics."""

import re
import shutil
import subprocess

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.core.stage import LOOP_STAGES, OomRung
from service.telemetry.definitions import CLUSTER, DISK, GPU
from service.telemetry.labels import (
    APIS,
    GPU_USES,
    JOB_ERRORS,
    OUTCOMES,
    REFUSALS,
    RESTART_REASONS,
    STAGES,
    size_class,
)
from service.telemetry.metrics import Metrics
from tests.support.samples import sample

STANDARD = ("process_", "python_")


@pytest.fixture
def families():
    """Return what a scrape of a service that did nothing yet reads, by name."""
    text = generate_latest(Metrics().registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family, *labels: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(s.labels[label] for label in labels): s.value
        for s in family.samples
        if s.name.endswith(("_total", "_count"))
    }


def zeros(*values: str) -> dict[tuple[str, ...], int]:
    return dict.fromkeys(((value,) for value in values), 0)


def test_every_metric_is_ours_and_says_what_it_counts(families):
    """One prefix, base units, and a sentence of help; besides them only the standard ones."""
    ours = {name: f for name, f in families.items() if not name.startswith(STANDARD)}
    for name, family in ours.items():
        assert re.fullmatch(r"sd_[a-z_]+", name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|mb|mib|gb|percent)(_|$)", name)


def test_known_label_sets_start_at_zero(families):
    """increase() never sees an event that gave birth to its series."""
    failed = {(api, "failed", code): 0 for api in APIS for code in JOB_ERRORS}
    good = [outcome for outcome in OUTCOMES if outcome != "failed"]
    ended = {(api, outcome, ""): 0 for api in APIS for outcome in good}
    assert values(families["sd_jobs"], "api", "outcome", "code") == failed | ended
    refused = {(api, reason): 0 for api in APIS for reason in REFUSALS}
    assert values(families["sd_requests_refused"], "api", "reason") == refused
    finished = {(api, outcome): 0 for api in APIS for outcome in OUTCOMES}
    assert values(families["sd_job_duration_seconds"], "api", "outcome") == finished
    ladder = {(stage, rung): 0 for stage in LOOP_STAGES for rung in OomRung}
    assert values(families["sd_oom"], "stage", "rung") == ladder
    assert values(families["sd_stage_duration_seconds"], "stage") == zeros(*STAGES)
    assert values(families["sd_gpu_seconds"], "use") == zeros(*GPU_USES)
    assert values(families["sd_engine_restarts"], "reason") == zeros(*RESTART_REASONS)


def test_keys_are_counted_from_zero_and_leave_with_their_series():
    """Only names in force are labels; what remains of others counts as other."""
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    assert value("sd_key_images_total", {"key": "anonymous"}) == 0
    metrics.know_keys(("alice", "bob"))
    assert value("sd_key_jobs_total", {"key": "bob", "outcome": "failed"}) == 0
    assert value("sd_key_images_total", {"key": "anonymous"}) is None
    metrics.key_images.labels(metrics.key("alice")).inc()
    metrics.know_keys(("alice",))
    assert value("sd_key_images_total", {"key": "alice"}) == 1
    assert value("sd_key_images_total", {"key": "bob"}) is None
    assert [metrics.key(name) for name in ("alice", "bob", "anonymous")] == [
        "alice",
        "other",
        "other",
    ]


def test_the_list_of_definitions_is_complete(families):
    """What the documentation is checked against names every family with its labels."""
    defined = {d.name.removesuffix("_total"): d for d in Metrics().definitions}
    beside = {d.name.removesuffix("_total") for d in (*GPU, *DISK, *CLUSTER)}
    ours = {name for name in families if not name.startswith(STANDARD)}
    unknown = {
        *("sd_engine_resident_memory_bytes", "sd_model_load_duration_seconds"),
        *("sd_results_bytes", "sd_results_limit_bytes", "sd_inputs_bytes"),
        *("sd_webhooks_pending", "sd_webhook_oldest_pending_age_seconds"),
        *("sd_memory_available_bytes", "sd_batch_calibrated", "sd_store_rows_set_aside"),
        *("sd_engine_gpu_memory_bytes", "sd_memory_need_bytes"),
    }
    assert set(defined) - beside - unknown == ours
    for name in ours:
        labels = {label for s in families[name].samples for label in s.labels} - {"le"}
        assert labels <= set(defined[name].labels)
        assert (families[name].type, families[name].documentation) == (
            defined[name].kind,
            defined[name].help,
        )


def test_what_is_not_known_is_absent():
    """A reading has no series before it was made, and none when what was read is gone."""
    metrics = Metrics()
    engine, name = metrics.engine("0"), "sd_engine_resident_memory_bytes"
    assert sample(metrics, name) is None
    engine.resident.set(0)
    assert sample(metrics, name) == 0
    engine.resident.forget()
    assert sample(metrics, name) is None


def test_every_engine_is_counted_for_itself():
    """A second one starts at 0, and neither shows what the other did, read or forgot."""
    metrics = Metrics()
    first = metrics.engine("0")
    metrics.know_engine("1")
    second = metrics.engine("1")
    assert (first.name, second.name) == ("0", "1")
    assert sample(metrics, "sd_steps_total", engine="1") == 0
    assert sample(metrics, "sd_oom_total", engine="1", stage="denoise", rung="fail") == 0
    second.steps.inc(3)
    first.step_duration("small").observe(0.5)
    assert [sample(metrics, "sd_steps_total", engine=name) for name in "01"] == [0, 3]
    count = "sd_step_duration_seconds_count"
    assert [sample(metrics, count, engine=name, size_class="small") for name in "01"] == [1, 0]
    for engine in (first, second):
        engine.resident.set(7)
        engine.memory("peak").set(8)
        engine.show_model("demo", "one", "cpu", "float32", gpu="")
    second.show_model("demo", "two", "cpu", "float32", gpu="")
    first.forget()
    shown = [sample(metrics, "sd_engine_resident_memory_bytes", engine=name) for name in "01"]
    assert shown == [None, 7]
    held = "sd_engine_gpu_memory_bytes"
    assert [sample(metrics, held, engine=name, kind="peak") for name in "01"] == [None, 8]
    (models,) = [family for family in metrics.registry.collect() if family.name == "sd_model_info"]
    named = [(each.labels["engine"], each.labels["version"]) for each in models.samples]
    assert named == [("0", "one"), ("1", "two")]


def test_an_engine_that_was_made_known_is_found_again():
    """Its metrics are the same object to everybody, and its families are declared once."""
    metrics = Metrics()
    defined = list(metrics.definitions)
    metrics.know_engine("1")
    assert metrics.engine("1") is metrics.engine("1")
    assert metrics.definitions == defined
    with pytest.raises(KeyError):
        metrics.engine("2")


def test_a_label_set_that_nobody_knew_is_counted_all_the_same():
    """An engine may name a stage that this side has no word for."""
    metrics = Metrics()
    metrics.engine("0").out_of_memory("another", "fail").inc()
    metrics.engine("0").out_of_memory("another", "fail").inc()
    assert sample(metrics, "sd_oom_total", stage="another", rung="fail") == 2


@pytest.mark.parametrize(
    ("side", "expected"),
    [(256, "small"), (384, "small"), (512, "medium"), (768, "large"), (1024, "huge")],
)
def test_sizes_fall_into_few_classes(side, expected):
    """A label per size would be a series per client's whim."""
    assert size_class(side * side) == expected


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Prometheus) is missing")
def test_promtool_finds_nothing_to_say():
    """Names, units and help follow the conventions of Prometheus."""
    text = generate_latest(Metrics().registry)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)  # noqa: PLW1510, S607 - its own words are the message
    assert (checked.stdout, checked.stderr, checked.returncode) == (b"", b"", 0)


def test_two_services_in_one_process_have_their_own_metrics():
    """Nothing is registered globally."""
    first, second = Metrics(), Metrics()
    first.engine("0").images.inc()
    assert sample(second, "sd_images_total") == 0
