"""The 15 rules of Grafana's dashboard-linter that concern Prometheus.

Ported by what each demands; some demand more here, where no kind of panel is passed over.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser as promql

from dashboards.substitution import panels_of
from tests.unit.dashboards.promql import (
    RATE_INTERVAL,
    function_over,
    matchers,
    nodes,
    parse,
    selectors,
    targets,
)

Json = dict[str, Any]
Finding = tuple[str, str]
"""The panel's title, empty for the dashboard, and what is wrong."""

Rule = Callable[[Json], Iterator[Finding]]

UNITS = {
    *("none", "short", "percent", "percentunit", "string", "bytes", "decbytes", "Bps", "binBps"),
    *("s", "ms", "m", "h", "d", "hertz", "dtdurations", "dateTimeAsIso", "dateTimeFromNow"),
    *("celsius", "watt", "joule", "watth", "kwatth", "ops", "reqps", "rps", "iops", "opm", "rpm"),
    *("bool", "bool_yes_no", "bool_on_off", "pixel"),
}
"""Of Grafana's some 270 units those that such a service may need."""

GRAPHLESS = {"text"}
"""Kinds of panels that ask nothing."""


def template_datasource(dashboard: Json) -> Iterator[Finding]:
    sources = [found for found in _variables(dashboard) if found["type"] == "datasource"]
    if not sources:
        yield "", "no variable for the data source"
    for source in sources:
        if source["name"] not in {"datasource", f"{source['query']}_datasource"}:
            yield "", f"data source variable is named {source['name']}"
        if source["label"] not in {"Data source", f"{source['query'].title()} data source"}:
            yield "", f"data source variable is labelled {source['label']}"


def template_job(dashboard: Json) -> Iterator[Finding]:
    yield from _choice(dashboard, "job")


def template_instance(dashboard: Json) -> Iterator[Finding]:
    yield from _choice(dashboard, "instance")


def template_label_promql(dashboard: Json) -> Iterator[Finding]:
    for variable in _queried(dashboard):
        query = variable["query"]["query"]
        match = re.fullmatch(r"(\w+)\((?:(.+),\s*)?(\w+)\)", query)
        if match is None or match[1] not in {"label_names", "label_values", "metrics"}:
            yield "", f"variable {variable['name']} asks {query}"
            continue
        try:
            parse(match[2] or match[3])
        except ValueError as error:
            yield "", f"variable {variable['name']} asks {query}: {error}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[Finding]:
    for variable in _queried(dashboard):
        if variable["refresh"] != 2:
            yield "", f"variable {variable['name']} keeps its choices when the time changes"


def panel_datasource(dashboard: Json) -> Iterator[Finding]:
    for panel in panels_of(dashboard):
        for asked in (panel, *panel["targets"]):
            if asked["datasource"]["uid"] not in {"$datasource", "${datasource}"}:
                yield panel["title"], f"asks the data source {asked['datasource']['uid']}"


def panel_title_description(dashboard: Json) -> Iterator[Finding]:
    for panel in panels_of(dashboard):
        if not panel["title"] or not panel["description"]:
            yield panel["title"], "has no title or no description"


def panel_units(dashboard: Json) -> Iterator[Finding]:
    for panel in panels_of(dashboard):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if panel["type"] not in GRAPHLESS and unit not in UNITS:
            yield panel["title"], f"has the unit {unit}"


def panel_no_targets(dashboard: Json) -> Iterator[Finding]:
    for panel in panels_of(dashboard):
        if panel["type"] not in GRAPHLESS and not panel["targets"]:
            yield panel["title"], "asks nothing"


def target_promql(dashboard: Json) -> Iterator[Finding]:
    for panel, target in targets(dashboard):
        try:
            parse(target["expr"])
        except ValueError as error:
            yield panel["title"], f"{target['refId']}: {error}"


def target_rate_interval(dashboard: Json) -> Iterator[Finding]:
    for panel, expr in _parsed(dashboard):
        for node, above in nodes(expr):
            if not isinstance(node, promql.MatrixSelector) or not above:
                continue
            call = above[-1]
            rate = isinstance(call, promql.Call) and call.func.name in {"rate", "irate"}
            if rate and node.range.total_seconds() != RATE_INTERVAL:
                yield panel["title"], f"{node.prettify()} goes into rate()"


def target_job(dashboard: Json) -> Iterator[Finding]:
    yield from _required(dashboard, "job")


def target_instance(dashboard: Json) -> Iterator[Finding]:
    yield from _required(dashboard, "instance")


def target_counter_agg(dashboard: Json) -> Iterator[Finding]:
    for panel, expr in _parsed(dashboard):
        for selector, above in selectors(expr):
            counts = function_over(above) in {"rate", "irate", "increase"}
            if selector.name.endswith("_total") and not counts:
                yield panel["title"], f"shows the counter {selector.name} as it is"


def uneditable_dashboard(dashboard: Json) -> Iterator[Finding]:
    if dashboard.get("editable") is not False:
        yield "", "can be edited"


RULES: dict[str, Rule] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable_dashboard,
}


def _variables(dashboard: Json) -> list[Json]:
    return list(dashboard["templating"]["list"])


def _queried(dashboard: Json) -> list[Json]:
    return [variable for variable in _variables(dashboard) if variable["type"] == "query"]


def _choice(dashboard: Json, name: str) -> Iterator[Finding]:
    found = {variable["name"]: variable for variable in _variables(dashboard)}.get(name)
    if found is None:
        yield "", f"no variable {name}"
        return
    wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
    for key, value in wanted.items():
        if found.get(key) != value:
            yield "", f"variable {name} has {key} {found.get(key)}, not {value}"
    if found.get("datasource", {}).get("uid") not in {"$datasource", "${datasource}"}:
        yield "", f"variable {name} asks another data source"


def _parsed(dashboard: Json) -> Iterator[tuple[Json, Any]]:
    for panel, target in targets(dashboard):
        try:
            yield panel, parse(target["expr"])
        except ValueError:  # Another rule's finding.
            continue


def _required(dashboard: Json, label: str) -> Iterator[Finding]:
    for panel, expr in _parsed(dashboard):
        for selector, _ in selectors(expr):
            if (label, "=~", f"${label}") not in matchers(selector):
                yield panel["title"], f'{selector.name} lacks {label}=~"${label}"'
