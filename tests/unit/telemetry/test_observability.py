"""docs/OBSERVABILITY.md, against the code, the dashboards and the rules."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.groups.objectives import FAST, OBJECTIVES, SLOW
from scripts import observability_tables
from service.config.setting import environment_name
from service.config.table import Config
from service.telemetry.labels import REFUSALS, SERVICE_FAULTS
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "OBSERVABILITY.md").read_text(encoding="utf-8")
DEFINITIONS = Metrics().definitions
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8"))[
        "groups"
    ]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))


def rows(kind: str, name: str = r"\w+") -> list[list[str]]:
    """Return the cells of the tables between the markers of a kind, without their heads."""
    blocks = re.findall(
        rf"<!-- {kind}: {name} -->\n(.*?)<!-- /{kind} -->", DOCUMENT, flags=re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("| ")]
    # The line under a head is no row; the head is the line before it.
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if not re.search(rf"^{re.escape(line)}\n\|-", DOCUMENT, flags=re.MULTILINE)
    ]


def test_the_tables_are_current():
    """`scripts/observability_tables.py` has been run since something last changed."""
    assert observability_tables.current(DOCUMENT) == DOCUMENT


def test_every_metric_is_described_as_the_code_has_it():
    """Once each, with its type, its labels and its meaning; and none that does not exist."""
    documented = [
        (name.strip("`"), kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text, _ in rows("metrics")
    ]
    expected = [(row.name, row.kind, row.labels, row.help) for row in DEFINITIONS]
    assert sorted(expected) == sorted(documented)


def test_every_metric_says_what_is_decided_by_it():
    """One that decides nothing is not worth its series."""
    assert [name for name, *_, decision in rows("metrics") if not decision] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_is_described_with_its_own_words(path):
    """In the order of the dashboard; and none that does not exist."""
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    expected = [
        (panel["title"], " ".join(panel["description"].partition("\n\nFrom: ")[0].split()))
        for panel in panels
        if panel["type"] != "row"
    ]
    assert expected == [(title, told) for title, told, _ in rows("panels", path.stem)]


def test_every_dashboard_has_its_tables():
    """A new one is not forgotten."""
    expected = [path.stem for path in DASHBOARDS]
    assert expected == sorted(re.findall(r"<!-- panels: (\w+) -->", DOCUMENT))


def test_every_alert_is_listed_with_its_severity_and_its_runbook():
    """In the order of the rules; and none that does not exist."""
    expected = [
        (f"[{name}](../alerts/runbooks/{name}.md)", rule["labels"]["severity"])
        for rule in ALERTS
        for name in [rule["alert"]]
    ]
    assert expected == [(link, severity) for link, severity, *_ in rows("alerts")]


def test_no_template_is_left_in_what_an_alert_says():
    """A reader is told the name of a variable, not how to fill it in."""
    assert [says for *_, says in rows("alerts") if "{{" in says or not says] == []


def test_what_the_text_mentions_exists():
    """Metrics, recorded series and alerts, wherever in the document."""
    known = {row.name for row in DEFINITIONS}
    known |= {
        f"{row.name}_{part}"
        for row in DEFINITIONS
        if row.kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    known |= {rule["record"] for rule in RULES if "record" in rule}
    known |= {rule["alert"] for rule in ALERTS}
    series = set(re.findall(r"`((?:sd|slo|instance)[_:][a-z0-9_:]+)`", DOCUMENT))
    alerts = set(re.findall(r"\bSD[A-Z][a-z]\w+", DOCUMENT))
    assert (series | alerts) - known == set()


def test_settings_that_the_text_mentions_exist():
    """Those of the service; OpenTelemetry's and Grafana's are theirs."""
    settings = {environment_name(row) for row in fields(Config)}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\w+)?`", DOCUMENT))
    assert {name for name in named if not name.startswith(("OTEL_", "GRAFANA_"))} <= settings


@pytest.mark.parametrize(
    ("pairs", "severity"), [(FAST, "page"), (SLOW, "ticket")], ids=["fast", "slow"]
)
def test_the_burn_rates_are_those_of_the_rules(pairs: Any, severity):
    """Rate, long and short window, and who hears of it."""
    written = {"1h": "1 h", "5m": "5 min", "6h": "6 h", "30m": "30 min", "1d": "1 d", "2h": "2 h"}
    written["3d"] = "3 d"
    for rate, long, short in pairs:
        row = rf"\| {rate:g} \| {written[long]} \| {written[short]} \| \d+ % \| {severity} \|"
        assert re.search(row, DOCUMENT)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_the_objectives_are_those_of_the_rules(objective):
    """What is promised is what is measured."""
    assert f"| {objective.name} | {objective.ratio:.0%} |".replace("%", " %") in DOCUMENT


def test_the_refusals_that_count_are_those_of_the_code():
    """The service's own faults are bad; those of callers, and a restart, count nowhere."""
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith("| availability |")]
    bad, _, uncounted = (set(re.findall(r"`(\w+)`", cell)) for cell in row.split("|")[3:6])
    assert bad & set(REFUSALS) == set(SERVICE_FAULTS)
    assert uncounted & set(REFUSALS) == set(REFUSALS) - set(SERVICE_FAULTS)


def test_every_link_leads_somewhere():
    """To a file of the repository, or to a heading of the document."""
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in DOCUMENT.splitlines()
        if line.startswith("#")
    }
    links = set(re.findall(r"\]\(([^)]+)\)", DOCUMENT))
    files = {link for link in links if not link.startswith(("#", "http"))}
    assert {link[1:] for link in links if link.startswith("#")} <= headings
    assert {link for link in files if not (ROOT / "docs" / link).is_file()} == set()
