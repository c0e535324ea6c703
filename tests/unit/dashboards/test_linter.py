"""The dashboards keep to the rules of Grafana's dashboard-linter, by the rules' names."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generate import FOLDER
from dashboards.substitution import panels_of
from tests.unit.dashboards.linter import RULES

Json = dict[str, Any]

NAMES = ("service", "gpu", "generation")


def load(name: str) -> Json:
    loaded: Json = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def excluded() -> dict[str, set[tuple[str, str]]]:
    """Return the panels that each rule passes over, by the file the linter reads."""
    rules = yaml.safe_load((FOLDER / ".lint").read_text())["exclusions"]
    return {
        rule: {(entry["dashboard"], entry["panel"]) for entry in given["entries"]}
        for rule, given in rules.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_rule(rule, name) -> None:
    """Every dashboard keeps to the rule, apart from panels excluded with a reason."""
    dashboard = load(name)
    passed = excluded().get(rule, set())
    found = [
        (panel, finding)
        for panel, finding in RULES[rule](dashboard)
        if (dashboard["title"], panel) not in passed
    ]
    assert found == []


def test_exclusions_are_needed_and_explained() -> None:
    """No exclusion outlives what it was made for, and each says why."""
    found = {
        rule: {
            (dashboard["title"], panel)
            for dashboard in map(load, NAMES)
            for panel, _ in RULES[rule](dashboard)
        }
        for rule in excluded()
    }
    assert found == excluded()
    rules = yaml.safe_load((FOLDER / ".lint").read_text())["exclusions"]
    assert all(given["reason"] for given in rules.values())


def first(dashboard: Json) -> Json:
    return next(panels_of(dashboard))


def variable(dashboard: Json, name: str) -> Json:
    found: Json = next(found for found in dashboard["templating"]["list"] if found["name"] == name)
    return found


def drop_variable(name: str) -> Callable[[Json], None]:
    def spoil(dashboard: Json) -> None:
        dashboard["templating"]["list"].remove(variable(dashboard, name))

    return spoil


def set_variable(which: str, /, **values: Any) -> Callable[[Json], None]:
    return lambda dashboard: variable(dashboard, which).update(values)


def set_panel(**values: Any) -> Callable[[Json], None]:
    return lambda dashboard: first(dashboard).update(values)


def ask(expr: str) -> Callable[[Json], None]:
    return lambda dashboard: first(dashboard)["targets"][0].update(expr=expr)


CHOSEN = '{job=~"$job", instance=~"$instance"}'
SPOILT: list[tuple[str, Callable[[Json], None]]] = [
    ("template-datasource-rule", drop_variable("datasource")),
    ("template-datasource-rule", set_variable("datasource", name="source")),
    ("template-datasource-rule", set_variable("datasource", label="Source")),
    ("template-job-rule", drop_variable("job")),
    ("template-job-rule", set_variable("job", multi=False)),
    ("template-job-rule", set_variable("job", datasource={"uid": "prometheus"})),
    ("template-instance-rule", drop_variable("instance")),
    ("template-instance-rule", set_variable("instance", allValue=".*")),
    ("template-instance-rule", set_variable("instance", label="instance")),
    ("template-label-promql-rule", set_variable("job", query={"query": "labels(up, job)"})),
    ("template-label-promql-rule", set_variable("job", query={"query": "label_values(up{, job)"})),
    ("template-on-time-change-reload-rule", set_variable("instance", refresh=1)),
    ("panel-datasource-rule", set_panel(datasource={"uid": "prometheus"})),
    ("panel-title-description-rule", set_panel(title="")),
    ("panel-title-description-rule", set_panel(description="")),
    ("panel-units-rule", lambda dashboard: first(dashboard)["fieldConfig"]["defaults"].pop("unit")),
    ("panel-units-rule", set_panel(fieldConfig={"defaults": {"unit": "seconds"}})),
    ("panel-no-targets-rule", set_panel(targets=[])),
    ("target-promql-rule", ask("sum(sd_ready")),
    ("target-promql-rule", ask("")),
    ("target-promql-rule", ask("sd_ready > $threshold")),
    ("target-rate-interval-rule", ask(f"rate(sd_steps_total{CHOSEN}[5m])")),
    ("target-job-rule", ask('sd_ready{instance=~"$instance"}')),
    ("target-job-rule", ask('sd_ready{job="$job", instance=~"$instance"}')),
    ("target-instance-rule", ask('sd_ready{job=~"$job"}')),
    ("target-counter-agg-rule", ask(f"sd_steps_total{CHOSEN}")),
    ("target-counter-agg-rule", ask(f"max_over_time(sd_steps_total{CHOSEN}[5m])")),
    ("target-counter-agg-rule", ask(f"sum(sd_steps_total{CHOSEN})")),
    ("uneditable-dashboard", lambda dashboard: dashboard.update(editable=True)),
    ("uneditable-dashboard", lambda dashboard: dashboard.pop("editable")),
]


@pytest.mark.parametrize(("rule", "spoil"), SPOILT)
def test_rule_finds_a_spoilt_copy(rule, spoil) -> None:
    """A rule that cannot fail proves nothing: each finds what was spoilt on purpose."""
    dashboard = load("generation")
    spoilt = copy.deepcopy(dashboard)
    spoil(spoilt)
    before, after = list(RULES[rule](dashboard)), list(RULES[rule](spoilt))
    assert len(after) > len(before)


def test_every_rule_was_spoilt() -> None:
    """All 15 rules are proven to find something."""
    assert {rule for rule, _ in SPOILT} == set(RULES)
    assert len(RULES) == 15


def test_exclusions_lie_where_the_linter_looks() -> None:
    """The linter reads ``.lint`` beside the dashboard."""
    assert Path(FOLDER / ".lint").is_file()
