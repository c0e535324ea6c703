"""The dashboard of the service: do callers get their images, in time, and if not, why."""

from typing import Final

from dashboards import queries as q
from dashboards.kinds import lines, table, tile
from dashboards.layout import Dashboard, Row, textbox
from dashboards.pages.apis import apis
from dashboards.pages.engines import cluster, engines
from dashboards.pages.kept import kept
from dashboards.pages.keys import keys
from dashboards.pages.service_causes import causes, objectives, saturation
from dashboards.pages.shared import NO_IMAGE, gpu_share
from dashboards.panel import (
    BLUE,
    DARK_RED,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Panel,
    Target,
    Word,
    colored,
    override,
)
from service.core.outcome import Outcome
from service.telemetry.labels import CALLER_FAULTS, SERVICE_FAULTS

SUCCEEDED: Final = 'outcome="succeeded"'
QUANTILES: Final = {"p50": GREEN, "p95": ORANGE, "p99": RED}
LATENCY_SECONDS: Final = 30.0
"""What 95 % of the images are promised within."""


def _good_share() -> str:
    good = q.rate("sd_jobs_total", SUCCEEDED)
    bad = q.rate("sd_jobs_total", q.BAD_OUTCOMES)
    refused = q.rate("sd_requests_refused_total", q.BAD_REFUSALS)
    return f"{good} / ({good} + {bad} + {refused})"


def _firing(severity: str) -> str:
    """Count alerts; -1 when not even the one that always fires does."""
    return (
        f'count(ALERTS{{{q.OURS}, alertstate="firing", severity="{severity}"}})\n'
        'or (count(ALERTS{alertname="SDWatchdog", alertstate="firing"}) * 0)\n'
        "or vector(-1)"
    )


def _alerts() -> str:
    """List alerts, pages first."""
    ranks = {"page": 3, "ticket": 2, "info|none": 1}
    ranked = (
        "max by (severity, alertname, alertstate, instance, engine) "
        f'(ALERTS{{alertname=~"SD.+", severity=~"{severity}"}}) * {rank}'
        for severity, rank in ranks.items()
    )
    return f"sort_desc({' or '.join(ranked)})"


def _tiles() -> list[Panel]:
    ready = f"min({q.metric('sd_ready')} or ({q.metric('up')} - 1)) or vector(-2)"
    return [
        tile(
            "Ready",
            "Is new work taken by every instance? DOWN: Prometheus cannot reach one; NOT READY: "
            "it answers and has no engine to work with; NO TARGET: Prometheus knows of none.",
            "none",
            Target(expr=ready),
            thresholds=((None, RED), (1, GREEN)),
            words={
                1: Word(text="READY", color=GREEN),
                0: Word(text="NOT READY", color=RED),
                -1: Word(text="DOWN", color=DARK_RED),
                -2: Word(text="NO TARGET", color=DARK_RED),
            },
        ),
        tile(
            "Alerts firing",
            "A page needs a person now, a ticket this week; the table below names them. BROKEN: "
            "the alert that always fires does not, so silence means nothing.",
            "none",
            Target(expr=_firing("page"), legend="pages"),
            Target(expr=_firing("ticket"), legend="tickets"),
            thresholds=((None, GREEN), (1, RED)),
            overrides=[
                override(
                    "tickets",
                    thresholds={
                        "mode": "absolute",
                        "steps": [
                            {"color": GREEN, "value": None},
                            {"color": ORANGE, "value": 1},
                        ],
                    },
                )
            ],
            words={-1: Word(text="BROKEN", color=DARK_RED)},
        ),
        tile(
            "Succeeded, last 5 min",
            "Share of jobs that gave an image, among those that should have: failed, timed out "
            "and refused by a fault of the service count against it. Below 99 % the "
            "objective is being missed: look which outcome below.",
            "percentunit",
            Target(expr=_good_share()),
            thresholds=((None, RED), (0.95, ORANGE), (0.99, GREEN)),
            decimals=1,
        ),
        tile(
            "p95 latency, last 5 min",
            "One in twenty images takes longer, from acceptance to the end. The objective is "
            "30 s: above it, see whether the wait in the queue or the generation grew.",
            "s",
            Target(expr=q.quantile(0.95, "sd_job_duration_seconds", SUCCEEDED)),
            thresholds=((None, GREEN), (20, ORANGE), (LATENCY_SECONDS, RED)),
            decimals=1,
        ),
        tile(
            "Queue used",
            "Waiting jobs against the limit. At 100 % requests are refused: add a GPU or an "
            "instance, or send fewer requests.",
            "percentunit",
            Target(expr=f"{q.total('sd_queue_depth')} / {q.total('sd_queue_limit')}"),
            thresholds=((None, GREEN), (0.5, ORANGE), (0.8, RED)),
            decimals=0,
        ),
        tile(
            "Oldest waiting job",
            "How long the first in the queue has waited. It grows by a second each second while "
            "nothing is taken up: then the engine is stuck.",
            "s",
            Target(expr=q.most("sd_queue_oldest_job_age_seconds")),
            thresholds=((None, GREEN), (15, ORANGE), (60, RED)),
            decimals=0,
        ),
        tile(
            "Error budget left",
            "Share of the errors that the objective allows in 30 days and that are left. Below "
            "25 %: no risky changes; below 0: reliability before anything else.",
            "percentunit",
            Target(
                expr=q.budget_left("availability"),
                legend="success",
            ),
            Target(
                expr=q.budget_left("latency"),
                legend="latency",
            ),
            thresholds=((None, RED), (0, ORANGE), (0.25, GREEN)),
            decimals=0,
        ),
        gpu_share(
            "GPU time wasted",
            "Share of the GPU's time in the last 5 min that became no image: cancelled, failed, "
            "timed out, lost, or done twice. Above 10 %, see below what became of it.",
            'use!="useful"',
            ((None, GREEN), (0.1, ORANGE), (0.3, RED)),
        ),
    ]


def _symptoms() -> list[Panel]:
    return [
        lines(
            "Latency from acceptance to image",
            "Is it slow for all (p50) or for some (p99)? Red line: the objective for p95. A dot "
            "is one request: open it to find it in the log.",
            "s",
            *(
                Target(
                    expr=q.quantile(float(name[1:]) / 100, "sd_job_duration_seconds", SUCCEEDED),
                    legend=name,
                    exemplar=True,
                )
                for name in QUANTILES
            ),
            overrides=colored(QUANTILES),
            thresholds=((None, GREEN), (LATENCY_SECONDS, RED)),
            marked=True,
        ),
        lines(
            "Jobs by outcome",
            "Ended jobs by outcome. Red and orange: the service failed them, look for the cause. "
            "Purple: callers closed the connection, often because it took too long. Grey: their "
            "owners cancelled them. Blue: the service stopped.",
            "opm",
            Target(expr=f"60 * {q.rate('sd_jobs_total', by='outcome')}", legend="{{outcome}}"),
            overrides=colored({Outcome.SUCCEEDED: GREEN, **NO_IMAGE}),
            stacked=True,
        ),
        table(
            "Alerts, firing and pending",
            "What is wrong, by name: each alert has a runbook. SDWatchdog always fires; when it "
            "is missing here, alerting itself is broken.",
            {
                "severity": "Severity",
                "alertname": "Alert",
                "alertstate": "State",
                "instance": "Instance",
                "engine": "Engine",
            },
            Target(expr=_alerts()),
            overrides=[
                override("State", custom_width=75),
                override("Engine", custom_width=60),
                override("Alert", custom_width=190),
                override(
                    "Severity",
                    mappings=[
                        {
                            "type": "value",
                            "options": {
                                "page": {"color": RED, "index": 0, "text": "page"},
                                "ticket": {"color": ORANGE, "index": 1, "text": "ticket"},
                                "info": {"color": BLUE, "index": 2, "text": "info"},
                                "none": {"color": GREY, "index": 3, "text": "none"},
                            },
                        }
                    ],
                    custom_cellOptions={"type": "color-background", "mode": "basic"},
                    custom_width=75,
                ),
            ],
        ),
        lines(
            "Queue wait",
            "The part of the latency that more capacity would take away. If it grows and the "
            "generation does not, the service is overloaded, not broken.",
            "s",
            *(
                Target(
                    expr=q.quantile(float(name[1:]) / 100, "sd_queue_wait_seconds"),
                    legend=name,
                    exemplar=True,
                )
                for name in QUANTILES
            ),
            overrides=colored(QUANTILES),
        ),
        lines(
            "Responses by route and status",
            "Responses per second by route. Red is 5xx, orange 4xx. A drop to zero while callers "
            "complain means that they do not reach the service.",
            "reqps",
            Target(
                expr=q.rate("sd_http_requests_total", by="route, method, status"),
                legend="{{method}} {{route}} {{status}}",
            ),
            overrides=colored({"/ 5..$/": RED, "/ 4..$/": ORANGE}),
            stacked=True,
        ),
        lines(
            "Refused requests by reason",
            f"{', '.join(SERVICE_FAULTS)} are faults of the service and count against the "
            f"objective; {', '.join(CALLER_FAULTS)} are the callers'; draining is a restart.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_requests_refused_total', by='reason')}",
                legend="{{reason}}",
            ),
            overrides=colored(
                {
                    "queue_full": RED,
                    "model_unavailable": DARK_RED,
                    "memory": "purple",
                    "storage_full": "dark-orange",
                    "circuit_open": "light-red",
                    "cluster_unreachable": "super-light-red",
                    "rate": "yellow",
                    "auth": "purple",
                    "connections": ORANGE,
                    "address": "light-orange",
                    "streams": "light-purple",
                    "uploads": "light-yellow",
                    "host": "light-blue",
                    "origin": "super-light-blue",
                    "validation": BLUE,
                    "draining": GREY,
                }
            ),
            stacked=True,
            bars=True,
        ),
    ]


def dashboard() -> Dashboard:
    """Describe the dashboard of the service."""
    return Dashboard(
        uid="sd-service",
        title="Stable Diffusion API: service",
        description="Availability, latency, queue and errors of the service.",
        rows=[
            Row(title="", panels=_tiles()),
            Row(title="Symptoms", panels=_symptoms()),
            Row(title="Objectives: 99 % succeed, 95 % within 30 s", panels=objectives()),
            Row(title="Saturation", panels=saturation()),
            Row(title="Engines", panels=engines()),
            Row(title="Causes", panels=causes()),
            Row(title="Stored jobs and webhooks", panels=kept()),
            Row(title="APIs", panels=apis()),
            Row(title="API keys", panels=keys()),
            Row(title="Cluster of engines", panels=cluster()),
        ],
        variables=[textbox("request_id", "Request id")],
    )
