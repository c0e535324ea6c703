"""Fill a dashboard with what Prometheus answers, and say which panels stay empty."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboards.substitution import panels_of, substitute
from scripts.render.prometheus import Prometheus, QueryFailed, seconds

Json = dict[str, Any]

STEPS: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 21600)
"""Seconds between points that look right on a time axis."""

COLUMNS: Final = 24
EXEMPLARS: Final = 60
"""Most dots in one panel; every request of a quarter of an hour would hide the lines."""


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
        shortest = seconds(panel["interval"]) if panel.get("interval") else 0.0
        wanted = max((self.end - self.start) / pixels, self.scrape, shortest)
        return next((float(step) for step in STEPS if step >= wanted), wanted)

    def intervals(self, step: float) -> dict[str, str]:
        """Return Grafana's own variables for points ``step`` seconds apart."""
        length = round(self.end - self.start)
        return {
            "__interval": _duration(step),
            "__interval_ms": str(round(1000 * step)),
            "__rate_interval": _duration(max(step + self.scrape, 4 * self.scrape)),
            "__range": f"{length}s",
            "__range_s": str(length),
            "__range_ms": str(1000 * length),
            "__from": str(round(1000 * self.start)),
            "__to": str(round(1000 * self.end)),
        }


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A panel that shows nothing, or less than it should."""

    panel: str
    kind: str
    """``error``, ``empty``, ``undrawn``, or ``partly`` where only some queries gave nothing."""
    query: str = ""
    """The letters of the queries."""
    text: str = ""

    def __str__(self) -> str:
        what = {"error": "query error", "empty": "no data", "partly": "no data in some queries"}
        query = self.query and f" ({self.query})"
        text = self.text and f": {self.text}"
        return f"{what.get(self.kind, 'not drawn')}: {self.panel}{query}{text}"


def variables_of(dashboard: Json) -> dict[str, str]:
    """Return the value of every variable that is chosen when the dashboard is opened."""
    chosen = {}
    for variable in dashboard.get("templating", {}).get("list", []):
        value = variable.get("current", {}).get("value", variable.get("query", ""))
        if value in ("$__all", ["$__all"]):
            chosen[variable["name"]] = variable.get("allValue") or ".*"
        elif isinstance(value, list):
            # As in Grafana: several values are alternatives, each meant literally.
            chosen[variable["name"]] = "|".join(
                re.escape(one).replace("\\", "\\\\") for one in value
            )
        else:
            chosen[variable["name"]] = str(value)
    return chosen


def ask(
    dashboard: Json, prometheus: Prometheus, span: Span, variables: Mapping[str, str]
) -> tuple[Json, list[Fault]]:
    """Return what the page draws, and the panels that something is wrong with."""
    panels: list[Json] = []
    faults: list[Fault] = []
    for panel in dashboard["panels"]:
        panels.append(panel)
        if panel["type"] == "row":  # A collapsed one is drawn open: its panels are below it.
            panels.extend(panel.get("panels", []))
    known = variables_of(dashboard) | dict(variables)
    for index, panel in enumerate(panels):
        if panel["type"] == "row":
            continue
        answers = list(_answers(panel, prometheus, span, known))
        faults += faults_of(panel["title"], answers)
        panels[index] = panel | {
            "answers": answers,
            "options": _filled(panel.get("options", {}), known),
            "title": _filled(panel["title"], known),
        }
    return {
        "title": dashboard["title"],
        "from": 1000 * span.start,
        "to": 1000 * span.end,
        "variables": _shown(dashboard, variables),
        "annotations": list(_annotations(dashboard, prometheus, span, known)),
        "panels": panels,
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


def count_panels(dashboard: Json) -> int:
    """Count what is drawn: all but the headings of rows."""
    return sum(1 for _ in panels_of(dashboard))


def _has_number(series: list[Json]) -> bool:
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def _answers(
    panel: Json, prometheus: Prometheus, span: Span, known: Mapping[str, str]
) -> Iterator[Json]:
    step = span.step(panel)
    for target in panel.get("targets", []):
        if target.get("hide"):
            continue
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
                answer["series"] = prometheus.over(expr, *_aligned(span, step), step)
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
        if "expr" not in annotation or not annotation.get("enable", True):
            continue
        step = max(seconds(annotation.get("step") or "0s"), span.scrape)
        # A step made for hours of scrapes every 15 s is too coarse for a few minutes.
        step = min(step, next((s for s in STEPS if s >= (span.end - span.start) / 200), step))
        expr = substitute(annotation["expr"], span.intervals(step) | dict(known))
        try:
            series = prometheus.over(expr, *_aligned(span, step), step)
            error = ""
        except QueryFailed as failed:
            series, error = [], str(failed)
        yield {
            "name": annotation["name"],
            "color": annotation.get("iconColor", "blue"),
            "spans": [part for one in series for part in _spans(one["values"], step)],
            "error": error,
        }


def _spans(values: list[tuple[float, str]], step: float) -> Iterator[tuple[float, float]]:
    """Join points that follow each other without a gap: first and last time, in ms."""
    first = last = None
    for time, value in values:
        if float(value) == 0:
            continue
        if first is None or last is None or time - last > 1.5 * step:
            if first is not None and last is not None:
                yield 1000 * first, 1000 * last
            first = time
        last = time
    if first is not None and last is not None:
        yield 1000 * first, 1000 * last


def _aligned(span: Span, step: float) -> tuple[float, float]:
    """Start and end at multiples of the step, so that the same points come every time."""
    return math.floor(span.start / step) * step, math.floor(span.end / step) * step


def _thinned(exemplars: list[Json]) -> list[Json]:
    """Keep the slowest of each stretch of time: those an operator would click on."""
    if len(exemplars) <= EXEMPLARS:
        return exemplars
    ordered = sorted(exemplars, key=lambda exemplar: float(exemplar["time"]))
    size = math.ceil(len(ordered) / EXEMPLARS)
    parts = (ordered[index : index + size] for index in range(0, len(ordered), size))
    return [max(part, key=lambda exemplar: float(exemplar["value"])) for part in parts]


def _shown(dashboard: Json, variables: Mapping[str, str]) -> list[Json]:
    shown = []
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable.get("hide") == 2:  # noqa: PLR2004 - Grafana's number for a hidden one
            continue
        text = variable.get("current", {}).get("text", "")
        text = " + ".join(text) if isinstance(text, list) else text
        name = variable["name"]
        shown.append(
            {"label": variable.get("label") or name, "text": variables.get(name, str(text))}
        )
    return shown


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


def _duration(length: float) -> str:
    return f"{round(length)}s" if length >= 1 else f"{round(1000 * length)}ms"
