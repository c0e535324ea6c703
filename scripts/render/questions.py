"""Fill a dashboard with what Prometheus answers, and say which panels stay empty."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboards.substitution import panels_of, seconds, substitute
from scripts.render.prometheus import Prometheus, QueryFailed

Json = dict[str, Any]

STEPS: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 21600)
"""Seconds between points that look right on a time axis."""

COLUMNS: Final = 24
EXEMPLARS: Final = 60
"""Most dots in one panel; every request of a quarter of an hour would hide the lines."""

FAULTS: Final = {
    "error": "query error",
    "empty": "no data",
    "partly": "no data in some queries",
    "undrawn": "not drawn",
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time that is looked at, and how finely."""

    start: float
    end: float
    scrape: float
    width: int
    """Of the whole page, in pixels: no panel asks for more points than it can show."""

    def step(self, panel: Mapping[str, Any]) -> float:
        """Return the time between two points of ``panel``."""
        pixels = self.width * panel["gridPos"]["w"] / COLUMNS
        shortest = seconds(panel.get("interval") or "0s")
        wanted = max((self.end - self.start) / pixels, self.scrape, shortest)
        return next((float(step) for step in STEPS if step >= wanted), wanted)

    def intervals(self, step: float) -> dict[str, str]:
        """Return Grafana's own variables for points ``step`` seconds apart."""
        length = round(self.end - self.start)
        return {
            "__interval": f"{round(step)}s",
            "__interval_ms": str(round(1000 * step)),
            "__rate_interval": f"{round(max(step + self.scrape, 4 * self.scrape))}s",
            "__range": f"{length}s",
            "__range_s": str(length),
            "__range_ms": str(1000 * length),
            "__from": str(round(1000 * self.start)),
            "__to": str(round(1000 * self.end)),
        }

    def ask(self, prometheus: Prometheus, expr: str, step: float) -> list[Json]:
        """Ask for values at multiples of the step, so that the same points come every time."""
        start, end = (math.floor(time / step) * step for time in (self.start, self.end))
        return prometheus.over(expr, start, end, step)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A panel that shows nothing, or less than it should."""

    panel: str
    kind: str
    """One of ``FAULTS``."""
    query: str = ""
    """The letters of the queries."""
    text: str = ""

    def __str__(self) -> str:
        query = self.query and f" ({self.query})"
        text = self.text and f": {self.text}"
        return f"{FAULTS[self.kind]}: {self.panel}{query}{text}"


def variables_of(dashboard: Json) -> dict[str, str]:
    """Return the value of every variable that is chosen when the dashboard is opened."""
    chosen = {}
    for variable in _variables(dashboard):
        value = variable.get("current", {}).get("value", variable.get("query", ""))
        if value in ("$__all", ["$__all"]):
            value = variable.get("allValue") or ".*"
        elif isinstance(value, list):
            # As in Grafana: several values are alternatives, each meant literally.
            value = "|".join(re.escape(one).replace("\\", "\\\\") for one in value)
        chosen[variable["name"]] = str(value)
    return chosen


def ask(
    dashboard: Json, prometheus: Prometheus, span: Span, variables: Mapping[str, str]
) -> tuple[Json, list[Fault]]:
    """Return what the page draws, and the panels that something is wrong with."""
    known = variables_of(dashboard) | dict(variables)
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    panels: list[Json] = []
    faults: list[Fault] = []
    for panel in panels_of(dashboard):  # Those of a collapsed row are drawn: the row is open.
        answers = list(_answers(panel, prometheus, span, known))
        faults += faults_of(panel["title"], answers)
        filled = _filled({"options": panel.get("options", {}), "title": panel["title"]}, known)
        panels.append(panel | filled | {"answers": answers})
    return {
        "title": dashboard["title"],
        "from": 1000 * span.start,
        "to": 1000 * span.end,
        "variables": list(_shown(dashboard, variables)),
        "annotations": list(_annotations(dashboard, prometheus, span, known)),
        "panels": rows + panels,
    }, faults


def faults_of(panel: str, answers: list[Json]) -> Iterator[Fault]:
    """Say what is wrong with the answers to the queries of one panel."""
    for answer in answers:
        if answer["error"]:
            yield Fault(panel=panel, kind="error", query=answer["refId"], text=answer["error"])
    empty = [a["refId"] for a in answers if not a["error"] and not _has_number(a["series"])]
    if empty:
        kind = "empty" if len(empty) == len(answers) else "partly"
        yield Fault(panel=panel, kind=kind, query=", ".join(empty))


def _has_number(series: list[Json]) -> bool:
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def _answers(
    panel: Json, prometheus: Prometheus, span: Span, known: Mapping[str, str]
) -> Iterator[Json]:
    step = span.step(panel)
    for target in panel.get("targets", []):
        answer: Json = {
            "refId": target["refId"],
            "legend": target.get("legendFormat", ""),
            "format": target.get("format", "time_series"),
            "instant": bool(target.get("instant")),
            "step": 1000 * step,
            "series": [],
            "exemplars": [],
            "error": "",
        }
        try:
            expr = substitute(target["expr"], span.intervals(step) | dict(known))
            answer["expr"] = expr
            if answer["instant"]:
                answer["series"] = prometheus.instant(expr, span.end)
            else:
                answer["series"] = span.ask(prometheus, expr, step)
            if target.get("exemplar") and panel["type"] == "timeseries":
                answer["exemplars"] = _thinned(prometheus.exemplars(expr, span.start, span.end))
        except KeyError as error:
            answer["error"] = f"unknown variable ${error.args[0]}"
        except QueryFailed as error:
            answer["error"] = str(error)
        yield answer


def _annotations(
    dashboard: Json, prometheus: Prometheus, span: Span, known: Mapping[str, str]
) -> Iterator[Json]:
    for annotation in dashboard.get("annotations", {}).get("list", []):
        step = max(seconds(annotation.get("step") or "0s"), span.scrape)
        # A step made for hours of scrapes every 15 s is too coarse for a few minutes.
        step = min(step, next((s for s in STEPS if s >= (span.end - span.start) / 200), step))
        expr = substitute(annotation["expr"], span.intervals(step) | dict(known))
        series, error = [], ""
        try:
            series = span.ask(prometheus, expr, step)
        except QueryFailed as failed:
            error = str(failed)
        yield {
            "name": annotation["name"],
            "color": annotation.get("iconColor", "blue"),
            "spans": [part for one in series for part in _spans(one["values"], step)],
            "error": error,
        }


def _spans(values: list[tuple[float, str]], step: float) -> list[list[float]]:
    """Join points that follow each other without a gap: first and last time, in ms."""
    spans: list[list[float]] = []
    for time in (1000 * time for time, value in values if float(value) != 0):
        if spans and time - spans[-1][1] <= 1500 * step:
            spans[-1][1] = time
        else:
            spans.append([time, time])
    return spans


def _thinned(exemplars: list[Json]) -> list[Json]:
    """Keep the slowest of each stretch of time: those an operator would click on."""
    ordered = sorted(exemplars, key=lambda exemplar: float(exemplar["time"]))
    size = max(1, math.ceil(len(ordered) / EXEMPLARS))
    parts = (ordered[index : index + size] for index in range(0, len(ordered), size))
    return [max(part, key=lambda exemplar: float(exemplar["value"])) for part in parts]


def _variables(dashboard: Json) -> list[Json]:
    return list(dashboard.get("templating", {}).get("list", []))


def _shown(dashboard: Json, variables: Mapping[str, str]) -> Iterator[Json]:
    for variable in _variables(dashboard):
        text = variable.get("current", {}).get("text", "")
        text = " + ".join(text) if isinstance(text, list) else str(text)
        name = variable["name"]
        yield {"label": variable.get("label") or name, "text": variables.get(name, text)}


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """Fill in variables wherever a text may have them; an unknown one stays as it is."""
    if isinstance(value, dict):
        return {key: _filled(one, known) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return substitute(value, known)
    except KeyError:
        return value
