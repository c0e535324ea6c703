"""Whether every query of every panel had data at some time of the drill."""

import json
import math
import re
import time
from dataclasses import dataclass
from typing import Any, Final

from alerts.windows import Windows
from dashboards.generate import files
from dashboards.substitution import queries_of
from scripts.drill.names import NOT_HERE
from scripts.drill.stack import QueryError, Stack

POINTS: Final = 2000
"""Of one range query; Prometheus gives at most 11,000."""

STATES: Final = re.compile(r"or\s+vector\(-\d+\)\s*$")
"""Such a query always answers: values below 0 name a state in place of a reading."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One query and what came of it."""

    dashboard: str
    panel: str
    query: str
    problem: str = ""
    excused: str = ""


async def panels(stack: Stack, begun: float, windows: Windows, seconds: int) -> list[Panel]:
    """Ask every query over the whole drill.

    The dashboards' "a day ago" is the ``step_offset`` of the drill's windows.
    """
    now = time.time()
    step = max(1, math.ceil((now - begun) / POINTS))
    found = []
    for name, text in files().items():
        queries = queries_of(
            json.loads(text),
            {"job": "sd-api", "__range": f"{math.ceil(now - begun)}s"},
            scrape_seconds=seconds,
            step_seconds=step,
        )
        for query in queries:
            expr = query.expr.replace("offset 1d", f"offset {windows.step_offset}")
            problem, excused = "", ""
            try:
                data = await stack.ask(
                    "query_range", query=expr, start=str(begun), end=str(now), step=f"{step}s"
                )
            except QueryError as error:
                problem = str(error)
            else:
                if not _has_data(data["result"], states=bool(STATES.search(expr))):
                    excused = next((why for name, why in NOT_HERE.items() if name in expr), "")
                    problem = "" if excused else "no data"
            found.append(
                Panel(
                    dashboard=name,
                    panel=query.panel,
                    query=query.ref,
                    problem=problem,
                    excused=excused,
                )
            )
    return found


async def exemplars(stack: Stack, begun: float) -> int:
    """Return how many exemplars with a request id Prometheus has kept."""
    data = await stack.ask(
        "query_exemplars",
        query="sd_job_duration_seconds_bucket",
        start=str(begun),
        end=str(time.time()),
    )
    return sum("request_id" in each["labels"] for series in data for each in series["exemplars"])


def _has_data(result: list[dict[str, Any]], *, states: bool) -> bool:
    values = (float(value) for series in result for _, value in series["values"])
    return any(not math.isnan(value) and (value >= 0 or not states) for value in values)
