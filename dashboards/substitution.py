"""The queries of a dashboard's JSON, with its variables filled in as Grafana would."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SCRAPE_SECONDS: Final = 15.0
"""Time between scrapes, as the provisioned data source says."""

DEFAULTS: Final[Mapping[str, str]] = {
    "job": ".+",
    "instance": ".+",
    "engine": ".*",
    "request_id": "",
    "__range": "1h",
    "__interval": "15s",
}
"""What stands for a variable unless told: all jobs, instances and engines, the last hour."""

VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|([a-zA-Z_]\w*))")
"""A name, as Grafana fills it in; ``$1`` is a group of ``label_replace``, which Grafana leaves."""

UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of one panel, ready to be asked."""

    panel: str
    panel_id: int
    kind: str
    """Of the panel: ``timeseries``, ``stat`` and so on."""
    ref: str
    expr: str
    legend: str
    instant: bool
    format: str
    """``time_series``, ``table`` or ``heatmap``."""


def queries_of(
    dashboard: Mapping[str, Any],
    variables: Mapping[str, str] | None = None,
    *,
    scrape_seconds: float = SCRAPE_SECONDS,
    step_seconds: float | None = None,
) -> list[Query]:
    """List the queries of all panels, in the order of the page.

    ``variables`` overrides the defaults above. ``$__rate_interval`` is what Grafana makes
    of the step and the time between scrapes: max(step + scrape, 4 scrapes), where a panel
    may ask for a longer step; name it in ``variables`` to set it for all panels.

    Raises:
        KeyError: a query names a variable that has no value.

    """
    step = step_seconds or scrape_seconds
    return [
        Query(
            panel=panel["title"],
            panel_id=panel["id"],
            kind=panel["type"],
            ref=target["refId"],
            expr=substitute(
                target["expr"],
                {
                    "__rate_interval": _rate_interval(panel, step, scrape_seconds),
                    **DEFAULTS,
                    **(variables or {}),
                },
            ),
            legend=target["legendFormat"].removeprefix("__auto"),
            instant=target["instant"],
            format=target["format"],
        )
        for panel in panels_of(dashboard)
        for target in panel["targets"]
    ]


def panels_of(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through the panels that are no headings of rows, inside collapsed rows as well."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panels_of(panel)
        else:
            yield panel


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``$name``, ``${name}`` and ``${name:format}``; the format is passed over.

    Raises:
        KeyError: a variable has no value.

    """
    return VARIABLE.sub(lambda match: variables[match[1] or match[2]], text)


def seconds(duration: str) -> float:
    """Read a duration of one or more parts, such as ``5m`` or ``1m30s``.

    Raises:
        ValueError: it is none.

    """
    if re.fullmatch(r"(\d+(ms|[smhd]))+", duration) is None:
        raise ValueError(f"no duration: {duration}")
    parts = re.findall(r"(\d+)(ms|[smhd])", duration)
    return float(sum(int(count) * UNITS[unit] for count, unit in parts))


def _rate_interval(panel: Mapping[str, Any], step: float, scrape: float) -> str:
    if shortest := panel.get("interval"):
        step = max(step, seconds(shortest))
    return f"{round(max(step + scrape, 4 * scrape))}s"
