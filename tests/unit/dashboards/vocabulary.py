"""Every metric, label and label value that a query of a dashboard may name."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from prometheus_client import Metric

from dashboards.generate import FOLDER
from service.gpu.nvml import THROTTLE_REASONS
from service.telemetry.labels import ENGINE_STATES
from service.telemetry.metrics import Metrics
from tests.support.monitoring.answers import ANSWERS

ADDED = {"job", "instance"}
"""Labels that Prometheus adds to whatever it scrapes."""

SERIES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


@dataclass(frozen=True, kw_only=True)
class Known:
    """One name that can stand in a query."""

    counts: bool
    """It only grows: a counter, or a part of a histogram."""
    labels: frozenset[str]
    values: dict[str, set[str]] = field(default_factory=dict)
    """Of those labels whose values are fixed."""


def vocabulary() -> dict[str, Known]:
    """Collect all names from the service's metrics and from the recording rules."""
    service = Metrics()
    families = {family.name: family for family in service.registry.collect()}
    known = {
        f"{definition.name}{ending}": Known(
            counts=definition.kind != "gauge",
            labels=frozenset(
                {*definition.labels, *ADDED, *({"le"} if ending == "_bucket" else ())}
            ),
            values=values(definition.name, families.get(definition.name.removesuffix("_total"))),
        )
        for definition in service.definitions
        for ending in SERIES[definition.kind]
    }
    for family in families.values():
        for sample in family.samples:
            if not family.name.startswith("sd_"):
                counts = family.type == "counter"
                known[sample.name] = Known(
                    counts=counts, labels=frozenset({*sample.labels, *ADDED})
                )
    known["up"] = Known(counts=False, labels=frozenset(ADDED))
    return known | recorded()


def values(name: str, family: Metric | None) -> dict[str, set[str]]:
    """Return the fixed values of a metric's labels; others depend on who calls, or the GPU."""
    fixed: dict[tuple[str, str], Any] = {
        ("sd_engine_gpu_memory_bytes", "kind"): {"allocated", "reserved", "peak"},
        ("sd_engine_state", "state"): ENGINE_STATES,
        ("sd_gpu_throttled", "reason"): THROTTLE_REASONS,
        **{("sd_http_requests_total", label): given for label, given in ANSWERS.items()},
    }
    found = {label: set(given) for (of, label), given in fixed.items() if of == name}
    for sample in family.samples if family is not None else ():
        for label, value in sample.labels.items():
            if label not in {"gpu", "version"}:
                found.setdefault(label, set()).add(value)
    return found


def rules() -> list[dict[str, Any]]:
    """Return all rules, recording and alerting."""
    groups = yaml.safe_load((FOLDER.parent / "alerts" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, Known]:
    """Collect what the rules write: recorded series, and ALERTS."""
    known: dict[str, Known] = {}
    for rule in rules():
        if "record" not in rule:
            continue
        given = rule.get("labels", {})
        constant = rule["expr"].strip().startswith("vector(")
        kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        grouped = {label for group in kept for label in group.split(", ")}
        before = known.get(rule["record"], Known(counts=False, labels=frozenset()))
        known[rule["record"]] = Known(
            counts=False,
            labels=before.labels | {*given, *grouped, *(() if constant else ADDED)},
            values={
                label: before.values.get(label, set()) | {value} for label, value in given.items()
            },
        )
    alerts = [rule for rule in rules() if "alert" in rule]
    known["ALERTS"] = Known(
        counts=False,
        labels=frozenset({"alertname", "alertstate", "severity", "engine", *ADDED}),
        values={
            "alertname": {alert["alert"] for alert in alerts},
            "alertstate": {"firing", "pending"},
            "severity": {alert["labels"]["severity"] for alert in alerts},
        },
    )
    return known
