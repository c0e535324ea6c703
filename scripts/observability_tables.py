"""Write the tables of docs/OBSERVABILITY.md; ``--check`` only says whether they are current.

Names, types and meanings come from the code, the dashboards and the alert rules. The last
column of a table of metrics, what an operator decides by it, is written by hand in the document
itself and stays with its metric.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.written import filled, keep_current
from service.telemetry.definitions import Definition
from service.telemetry.metrics import Metrics

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "OBSERVABILITY.md"
RULES: Final = ROOT / "alerts" / "rules.yml"
DASHBOARDS: Final = {
    name: ROOT / "dashboards" / f"{name}.json" for name in ("service", "gpu", "generation")
}

DECISION: Final = re.compile(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", re.MULTILINE)

GROUPS: Final = {
    "requests": ("sd_http_", "sd_requests_", "sd_connections", "sd_event_streams", "sd_sdapi_"),
    "jobs": ("sd_jobs_", "sd_answers_", "sd_queue_", "sd_job_duration_", "sd_job_last_"),
    "kept": ("sd_store_", "sd_jobs_kept", "sd_results_", "sd_webhook", "sd_inputs_", "sd_uploads_"),
    "generation": ("sd_generation_", "sd_stage_", "sd_step_", "sd_batch_"),
    "work": ("sd_images_", "sd_steps_", "sd_pixels_", "sd_job_", "sd_gpu_seconds_", "sd_key_"),
    "memory": (
        *("sd_oom_", "sd_memory_", "sd_adapter_"),
        *("sd_engine_gpu_memory_", "sd_engine_resident_memory_"),
    ),
    "engine": ("sd_ready", "sd_engine_", "sd_model_", "sd_build_"),
    "gpu": ("sd_gpu_",),
    "cluster": ("sd_cluster_",),
    "disk": ("sd_disk_",),
    "log": ("sd_log_",),
    "threads": ("sd_executor_",),
}
"""Which table a metric stands in; the longest beginning that fits decides."""


def group(metric: str) -> str:
    """Return the table of a metric; a metric without one is an error here, not a gap there."""
    fits = {
        start: name
        for name, starts in GROUPS.items()
        for start in starts
        if metric.startswith(start)
    }
    if not fits:
        sys.exit(f"{metric}: no table of docs/OBSERVABILITY.md takes it; see GROUPS")
    return fits[max(fits, key=len)]


def metrics(name: str, decisions: dict[str, str]) -> Iterator[str]:
    """Return the rows of one table of metrics."""
    yield "| Metric | Type | Labels | What it is | What you decide by it |"
    yield "|---|---|---|---|---|"
    for metric in Metrics().definitions:
        if group(metric.name) == name:
            yield _metric(metric, decisions.get(metric.name, ""))


def _metric(metric: Definition, decision: str) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = (f"`{metric.name}`", metric.kind, labels, metric.help, decision)
    return f"| {' | '.join(cells)} |"


def panels(name: str) -> Iterator[str]:
    """Return a table for each row of a dashboard."""
    dashboard = json.loads(DASHBOARDS[name].read_text(encoding="utf-8"))
    yield f"**{dashboard['title']}** (`{dashboard['uid']}`)"
    yield from _head("At a glance")
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from _head(panel["title"])
            continue
        told, _, source = panel["description"].partition("\n\nFrom: ")
        yield f"| {panel['title']} | {_cell(told)} | {_cell(source)} |"


def _head(title: str) -> Iterator[str]:
    yield ""
    yield f"| {title} | What it tells | From |"
    yield "|---|---|---|"


def series(_name: str) -> Iterator[str]:
    """Return the sentence with the number of series that are there from the start."""
    families = Metrics().registry.collect()
    count = sum(len(each.samples) for each in families if each.name.startswith("sd_"))
    yield f"A service that has just started shows {count:,} series of its own: APIs count from 0."


def alerts(_name: str) -> Iterator[str]:
    """Return the rows of the table of alerts."""
    yield "| Alert | Severity | After | What it says |"
    yield "|---|---|---|---|"
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if "alert" in rule:
            yield _alert(rule)


def _alert(rule: dict[str, Any]) -> str:
    name = rule["alert"]
    link = f"[{name}](../alerts/runbooks/{name}.md)"
    says = _cell(_spoken(rule["annotations"]["summary"]))
    return f"| {link} | {rule['labels']['severity']} | {rule.get('for', 'at once')} | {says} |"


def _spoken(template: str) -> str:
    """Return what an annotation says, with its variables named and not filled in."""
    for pattern, replacement in (
        (r"\{\{ else \}\}", " / "),
        (r"\{\{ (if [^}]*|end) \}\}", ""),
        (r"\{\{ \$labels\.(\w+) \}\}", r"*\1*"),
        (r"\{\{ \$value[^}]*\}\}", "*N*"),
    ):
        template = re.sub(pattern, replacement, template)
    return template


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def current(document: str) -> str:
    """Return the document with its tables as they should be."""
    decisions = dict(DECISION.findall(document))
    kinds: dict[str, Callable[[str], Iterator[str]]] = {
        "metrics": lambda name: metrics(name, decisions),
        "panels": panels,
        "alerts": alerts,
        "series": series,
    }
    return filled(document, lambda kind, name: kinds[kind](name))


if __name__ == "__main__":
    sys.exit(keep_current(DOCUMENT, current))
