"""Whether every panel had data at some time of the drill, and every metric did move."""

import json
import math
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from dashboards.generate import files
from dashboards.substitution import queries_of
from service.telemetry import labels
from service.telemetry.definitions import CLUSTER
from service.telemetry.metrics import Metrics
from tests.drills.monitoring.scene import Scene
from tests.support.monitoring.stack import QueryError

NOT_HERE: Final = {
    # What torch says of a GPU; the stand-in is for the driver, and no torch computes on it.
    "sd_engine_gpu_memory_bytes": "needs a real GPU",
    "sd_engine_gpu_info": "needs a real GPU",
    **{each.name: "a drill has no cluster" for each in CLUSTER},
    # It would be measured again at each of the drill's many starts of an engine.
    "sd_batch_calibrated": "needs BATCH_CALIBRATION",
}
"""Metrics that no drill has, and why not."""

CONSTANT: Final = "says what there is, which no fault changes"
STILL: Final = {
    **dict.fromkeys(
        (
            *("sd_gpu_info", "sd_gpu_memory_total_bytes", "sd_gpu_temperature_slowdown_celsius"),
            *("sd_gpu_power_limit_watts", "sd_disk_size_bytes", "sd_connections_limit"),
            *("sd_queue_limit", "sd_results_limit_bytes", "sd_build_info", "sd_executor_threads"),
            *("sd_model_info", "sd_batch_limit", "sd_uploads_limit_bytes"),
        ),
        CONSTANT,
    ),
    **dict.fromkeys(
        (
            *("sd_adapter_loads_total", "sd_adapter_load_seconds"),
            *("sd_adapter_evictions_total", "sd_adapter_bytes"),
        ),
        "a drill has no adapters",
    ),
    "sd_results_removed_bytes_total": "a drill ends before its images are old, or too many",
    "sd_results_damaged_total": "a drill spoils no file behind the back of the service",
    "sd_store_rows_set_aside": "a drill spoils no row behind the back of the service",
    "sd_webhooks_waiting": "the receivers of a drill answer at once, so that none waits for a turn",
    "sd_log_lines_dropped_total": "the drill reads the log all the time, to see what happens",
    "sd_answers_failed_total": "no fault of a drill lets an answer fail after its job",
    "sd_uploads_bytes": "an image may be with its job before the next scrape",
    "sd_executor_busy_threads": "a call may be over before the next scrape",
    "sd_executor_waiting_calls": "a drill has one key, which gets a part of the threads",
}
"""Metrics that are there and do not move, and why not."""

POINTS: Final = 2000  # Of one range query; Prometheus gives at most 11,000.
STATES: Final = re.compile(r"or\s+vector\(-\d+\)\s*$")
"""Such a query always answers: values below 0 name a state in place of a reading."""

Found = AsyncIterator[tuple[str, str, str]]
"""Where something was looked for, what is wrong, and its excuse."""


async def panels(scene: Scene) -> Found:
    """Ask every query of every panel over the whole drill.

    The dashboards' "a day ago" is the ``step_offset`` of the drill's windows.
    """
    begun, now = scene.begun, time.time()
    step = max(1, math.ceil((now - begun) / POINTS))
    span = f"{math.ceil(now - begun)}s"
    given = {"job": "sd-api", "__range": span}
    over = {"start": str(begun), "end": str(now), "step": f"{step}s"}
    for name, text in files().items():
        for query in queries_of(json.loads(text), given, scrape_seconds=1, step_seconds=step):
            expr = query.expr.replace("offset 1d", f"offset {scene.windows.step_offset}")
            problem = ""
            try:
                result = (await scene.stack.ask("query_range", query=expr, **over))["result"]
                if not _has_data(result, states=bool(STATES.search(expr))):
                    problem = "no data"
            except QueryError as error:
                problem = str(error)
            excuse = next((why for name, why in NOT_HERE.items() if name in expr), "")
            where = f"{name}: {query.panel} {query.ref}"
            yield where, problem, excuse if problem == "no data" else ""
    for api in labels.APIS:
        ended = await scene.stack.value(
            f'max_over_time(sum(sd_jobs_total{{api="{api}"}})[{span}:1s])'
        )
        yield f"jobs by API: {api}", "" if ended else "no data", ""
    data = await scene.stack.ask(
        "query_exemplars",
        query="sd_job_duration_seconds_bucket",
        start=str(begun),
        end=str(now),
    )
    kept = sum("request_id" in each["labels"] for series in data for each in series["exemplars"])
    yield "exemplars", "" if kept else "none leads to a request", ""


async def metrics(scene: Scene) -> Found:
    """Look for each metric of the service by its name, its labels, and a change of its value."""
    span = f"[{math.ceil(time.time() - scene.begun)}s:1s]"
    for each in Metrics().definitions:
        name = f"{each.name}_count" if each.kind == "histogram" else each.name
        match = {"match[]": name, "start": str(scene.begun)}
        labels = await scene.stack.ask("labels", **match)
        if not labels:
            yield each.name, "never there", NOT_HERE.get(each.name, "")
        elif lacking := set(each.labels) - set(labels):
            yield each.name, f"without {', '.join(sorted(lacking))}", ""
        else:
            # A series that is born with its first event has moved, too.
            series = f"count({name})"
            changed = await scene.stack.value(
                f"max(changes({name}{span})) + max_over_time({series}{span})"
                f" - min_over_time({series}{span})"
            )
            yield each.name, "" if changed else "did not move", STILL.get(each.name, "")


def _has_data(result: list[dict[str, Any]], *, states: bool) -> bool:
    values = (float(value) for series in result for _, value in series["values"])
    return any(not math.isnan(value) and (value >= 0 or not states) for value in values)
