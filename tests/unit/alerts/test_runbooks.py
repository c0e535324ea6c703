"""Runbooks: one for each alert, and nothing in them that does not exist."""

import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from service.config.table import Config
from service.telemetry.labels import REFUSALS, SERVICE_FAULTS
from tests.unit.alerts.programs import ALERTS, NAMES, RULES
from tests.unit.alerts.vocabulary import recorded, scraped

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
RUNBOOKS = ALERTS / "runbooks"
SERVICE = ALERTS.parent / "service"
DASHBOARDS = ALERTS.parent / "dashboards"
METRICS = set(scraped()) | set(recorded(RULES))
SETTINGS = {row.name.upper() for row in fields(Config)}
OTHERS = {"HF_HUB_OFFLINE", "PAGE_RETIREMENT", "ROW_REMAPPER"}
"""Words in capitals that are no settings of ours but of other programs."""


def text(name):
    return (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")


@cache
def logged():
    """Return every event that the service logs."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in SERVICE.rglob("*.py"))
    return set(re.findall(r"log\.\w+\(\s*\"([a-z_]+)\"", source))


@cache
def panels():
    titles = set()
    for path in sorted(DASHBOARDS.glob("*.json")):
        pending = json.loads(path.read_text(encoding="utf-8"))["panels"]
        while pending:
            panel = pending.pop()
            titles.add(panel["title"])
            pending += panel.get("panels", [])
    return titles


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    """Named for it."""
    assert sorted(path.stem for path in RUNBOOKS.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_has_four_parts(name):
    """In this order, each with something in it."""
    parts = re.split(r"^## ", text(name), flags=re.MULTILINE)
    assert parts[0].strip() == f"# {name}"
    assert [part.split("\n", 1)[0] for part in parts[1:]] == HEADINGS
    assert all(len(part.split()) > 10 for part in parts[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_names_metrics_that_there_are(name):
    """Those in a curl line may be the beginning of a name."""
    for word in re.findall(r"\b(?:sd|slo)_[a-z_]+[a-z]", text(name)):
        assert any(metric.startswith(word) for metric in METRICS), word


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_names_settings_that_there_are(name):
    """In code, in capitals."""
    code = " ".join(re.findall(r"`([^`]+)`", text(name)))
    assert set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", code)) <= SETTINGS | OTHERS


def test_the_runbook_of_the_objective_names_every_refusal_that_counts():
    """Each leads to its own alert, or to the place to look at."""
    assert set(SERVICE_FAULTS) <= set(re.findall(r"`(\w+)`", text("SDErrorBudgetBurnFast")))


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_names_log_events_that_there_are(name):
    """After the words "the log" stand events; fields and codes of errors are known by name."""
    events = logged()
    known = {
        *("batch_size", "out_of_memory", "generation_failed", "engine_crashed", "attempts"),
        *("disconnected", "timed_out", "internal_error"),
        *("validation_error", "model_not_found", "body_too_large"),
        "request_answered",  # One of two, in middleware/observation.py.
        *("hw_slowdown", "hw_thermal", "sw_thermal", "sw_power_cap", "power_brake"),
        *("free_cache", "split_batch", "vae_tiling", "vae_decode", "vae_encode"),
        "text_encode",
        *("not_started", "load_failed", "shutting_down", "dpmpp_2m"),
        *("engine_unavailable", "half_open", "set_aside", "too_many_connections"),
        *("storage_unavailable", "input_lost", "too_many_uploads", "uploads_full"),
        *REFUSALS,
    }
    words = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", text(name)))
    assert {word for word in words if not word.startswith("sd_")} <= events | known | METRICS


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_names_panels_that_there_are(name):
    """In bold, as the dashboards title them."""
    if not list(DASHBOARDS.glob("*.json")):
        pytest.skip("the dashboards are not generated")
    assert set(re.findall(r"\*\*([^*]+)\*\*", text(name))) <= panels()


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_refers_to_alerts_and_files_that_there_are(name):
    """So that a reader is never sent nowhere."""
    assert set(re.findall(r"\bSD[A-Z][a-z]\w+", text(name))) <= set(NAMES)
    for path in re.findall(r"`((?:alerts|monitoring|scripts)/[\w/.]+)`", text(name)):
        assert (Path(ALERTS.parent) / path).exists(), path
