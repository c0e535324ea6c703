"""One panel: what it asks, how it is drawn, and its JSON as Grafana 11 to 13 read it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
GREEN, ORANGE, RED, GREY, BLUE = "green", "orange", "red", "#6e7687", "blue"
DARK_RED: Final = "#8f1d1d"

METRIC: Final = re.compile(
    r"\b((?:sd|process)_[a-z0-9_]+|(?:slo|instance_size_class):[a-z0-9_:]+|up|ALERTS)\{"
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One query of a panel."""

    expr: str
    legend: str = ""
    instant: bool = False
    exemplar: bool = False
    format: str = "time_series"
    """``time_series``, ``table`` or ``heatmap``."""

    def json(self, index: int) -> Json:
        """Write the query; the first of a panel is A, the second B."""
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "exemplar": self.exemplar,
            "expr": self.expr,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "refId": chr(ord("A") + index),
        }


@dataclass(frozen=True, kw_only=True)
class Word:
    """What is shown in place of a value."""

    text: str
    color: str


Words = Mapping[float | str, Word]
"""A number, or ``nan`` for a ratio of nothing to nothing."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of any kind; the functions of ``kinds`` know what each kind needs."""

    kind: str
    title: str
    description: str
    """What an operator decides by it; the names of the metrics are added."""
    targets: Sequence[Target]
    unit: str
    options: Json
    custom: Json = field(default_factory=dict)
    width: int = 8
    height: int = 8
    thresholds: Sequence[tuple[float | None, str]] = ((None, GREEN),)
    """From which value on which colour; the first, None, holds below the others."""
    color_mode: str = "thresholds"
    """How a series gets its colour; or ``fixed:`` and one colour for all."""
    words: Words = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    minimum: float | None = None
    maximum: float | None = None
    decimals: int | None = None
    interval: str = ""
    """Shortest step; ``$__rate_interval`` is one scrape longer."""
    no_value: str = ""
    transformations: Sequence[Json] = ()

    def json(self, identity: int, x: int, y: int) -> Json:
        """Write the panel at a place of the grid, which is 24 wide."""
        defaults: Json = {
            "color": _color(self.color_mode),
            "custom": self.custom,
            "mappings": mappings(self.words),
            "thresholds": {
                "mode": "absolute",
                "steps": [{"color": color, "value": value} for value, color in self.thresholds],
            },
            "unit": self.unit,
        }
        given = {
            "min": self.minimum,
            "max": self.maximum,
            "decimals": self.decimals,
            "noValue": self.no_value or None,
        }
        defaults |= {name: value for name, value in given.items() if value is not None}
        panel: Json = {
            "datasource": DATASOURCE,
            "description": self._description(),
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "id": identity,
            "options": self.options,
            "targets": [target.json(index) for index, target in enumerate(self.targets)],
            "title": self.title,
            "transformations": list(self.transformations),
            "type": self.kind,
        }
        if self.interval:
            # So many points that no time range, however long, makes the step longer.
            panel |= {"interval": self.interval, "maxDataPoints": 10_000}
        return panel

    def _description(self) -> str:
        names = dict.fromkeys(
            name for target in self.targets for name in METRIC.findall(target.expr)
        )
        if not names:
            return self.description
        return f"{self.description}\n\nFrom: {', '.join(f'`{name}`' for name in names)}"


def _color(mode: str) -> Json:
    kind, _, fixed = mode.partition(":")
    return {"mode": kind, "fixedColor": fixed} if fixed else {"mode": kind}


def mappings(words: Words) -> list[Json]:
    """Write ``words`` as Grafana's value mappings."""
    results = {
        key: {"color": word.color, "index": index, "text": word.text}
        for index, (key, word) in enumerate(words.items())
    }
    numbers = {
        f"{key:g}": result for key, result in results.items() if isinstance(key, int | float)
    }
    special: list[Json] = [
        {"type": "special", "options": {"match": key, "result": result}}
        for key, result in results.items()
        if isinstance(key, str)
    ]
    return ([{"type": "value", "options": numbers}] if numbers else []) + special


def override(name: str, **properties: Any) -> Json:
    """Change how the series ``name`` is drawn; ``/.../`` is an expression.

    Of a property's name the first ``_`` stands for a dot: ``custom_lineWidth``.
    """
    matcher = "byRegexp" if name.startswith("/") else "byName"
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [
            {"id": key.replace("_", ".", 1), "value": value} for key, value in properties.items()
        ],
    }


def colored(colors: Mapping[str, str]) -> list[Json]:
    """Give each series its own colour: what is bad looks bad in every panel."""
    return [
        override(name, color={"fixedColor": color, "mode": "fixed"})
        for name, color in colors.items()
    ]


def limit(name: str, color: str = RED) -> Json:
    """Draw a series as the dashed line that others should stay below."""
    return override(
        name,
        color={"fixedColor": color, "mode": "fixed"},
        custom_fillOpacity=0,
        custom_lineStyle={"dash": [8, 6], "fill": "dash"},
        custom_lineWidth=2,
        custom_stacking={"group": "limit", "mode": "none"},
    )
