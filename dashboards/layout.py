"""A whole dashboard: rows of panels placed in the grid, variables, annotations, links."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboards.panel import BLUE, DATASOURCE, ORANGE, RED, Json, Panel
from dashboards.queries import OURS, metric

WIDTH: Final = 24
SCHEMA: Final = 39
"""Of Grafana 11; later ones migrate it while loading."""

TAG: Final = "sd-api"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a heading; the first row has none."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """What Grafana shows on one page."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Json] = ()
    """Beyond data source, job and instance."""

    def json(self) -> Json:
        """Write the dashboard."""
        return {
            "annotations": {"list": annotations()},
            "description": self.description,
            "editable": False,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "id": None,
            "links": [
                {
                    "asDropdown": False,
                    "icon": "external link",
                    "includeVars": True,
                    "keepTime": True,
                    "tags": [TAG],
                    "targetBlank": False,
                    "title": "Stable Diffusion API",
                    "tooltip": "",
                    "type": "dashboards",
                    "url": "",
                }
            ],
            "panels": list(place(self.rows)),
            "refresh": "30s",
            "schemaVersion": SCHEMA,
            "tags": [TAG],
            "templating": {"list": [*variables(), *self.variables]},
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
            "weekStart": "",
        }


def place(rows: Sequence[Row]) -> Iterator[Json]:
    """Put panels side by side from the left until the grid's width is used up."""
    identity, y = 1, 0
    for row in rows:
        if row.title:
            yield {
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "id": identity,
                "panels": [],
                "title": row.title,
                "type": "row",
            }
            identity, y = identity + 1, y + 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            yield panel.json(identity, x, y)
            identity, x, height = identity + 1, x + panel.width, max(height, panel.height)
        y += height


def variables() -> list[Json]:
    """List what can be chosen at the top of every dashboard."""
    source: Json = {
        "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
        "hide": 0,
        "includeAll": False,
        "label": "Data source",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }
    return [
        source,
        # Not "All" at first: process_* and up of other jobs would be mixed in.
        _choice("job", "label_values(sd_build_info, job)", "sd-api", "sd-api"),
        _choice("instance", 'label_values(sd_build_info{job=~"$job"}, instance)', "All", "$__all"),
        # An earlier version of the service has no such label, which .+ would leave out.
        _choice("engine", f"label_values({metric('sd_engine_state')}, engine)", "All", "$__all")
        | {"allValue": ".*"},
    ]


def textbox(name: str, label: str) -> Json:
    """Let the reader type something in, or a link bring it along."""
    return {
        "current": {"selected": False, "text": "", "value": ""},
        "hide": 0,
        "label": label,
        "name": name,
        "options": [],
        "query": "",
        "skipUrlSync": False,
        "type": "textbox",
    }


def annotations() -> list[Json]:
    """List what is drawn across all panels: alerts, and what the engine went through."""
    return [
        _annotation(
            "Pages",
            # Pages only: each is drawn over all graphs for as long as it fires.
            f'ALERTS{{{OURS}, alertstate="firing", severity="page"}}',
            RED,
            title="{{alertname}}",
            text="{{instance}}",
        ),
        _annotation(
            "Engine restarts",
            "sum by (instance, engine, reason) "
            f"(increase({metric('sd_engine_restarts_total')}[$__rate_interval])) > 0",
            ORANGE,
            title="Engine {{engine}} restarted: {{reason}}",
            text="{{instance}}",
        ),
        _annotation(
            "Model loads",
            f"""max by (instance, engine) ({metric("sd_engine_state", 'state="loading"')}) == 1""",
            BLUE,
            title="Engine {{engine}} loads its model",
            text="{{instance}}",
        ),
        _annotation(
            "Service starts",
            f"changes({metric('process_start_time_seconds')}[$__rate_interval]) > 0",
            BLUE,
            title="Service started",
            text="{{instance}}",
        ),
    ]


def _annotation(name: str, expr: str, color: str, *, title: str, text: str) -> Json:
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "hide": False,
        "iconColor": color,
        "name": name,
        "step": "15s",
        "tagKeys": "",
        # Later releases read the query here, and the earlier ones above.
        "target": {"expr": expr, "interval": "15s", "refId": "Anno"},
        "textFormat": text,
        "titleFormat": title,
        "useValueForTime": False,
    }


def _choice(name: str, query: str, shown: str, value: Any) -> Json:
    return {
        "allValue": ".+",
        "current": {"selected": True, "text": [shown], "value": [value]},
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": True,
        "label": name.capitalize(),
        "multi": True,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": query, "refId": name},
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }
