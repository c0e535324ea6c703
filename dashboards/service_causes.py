"""The lower half of the service's dashboard: objectives, saturation, causes."""

from dashboards import queries as q
from dashboards.kinds import bars, lines, states, text
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
    Words,
    colored,
    limit,
)
from dashboards.shared import restarts


def objectives() -> list[Panel]:
    """Show how fast the error budgets are spent."""

    def burning(which: str) -> Panel:
        return lines(
            f"Burn rate, {which}",
            "How many times faster than allowed the budget is spent. At 1 it lasts 30 days, at "
            "6 (orange) 5 days, at 14.4 (red) 2 days: the last two page somebody, when the short "
            "window agrees with the long one.",
            "none",
            *(
                Target(expr=q.burn_rate(which, window), legend=window)
                for window in ("5m", "1h", "6h", "3d")
            ),
            overrides=colored({"5m": GREY, "1h": BLUE, "6h": "purple", "3d": GREEN}),
            thresholds=((None, GREEN), (1, "yellow"), (6, ORANGE), (14.4, RED)),
            marked=True,
            top=16,
        )

    return [
        lines(
            "Error budget over time",
            "How fast the month's budget goes, and when it went: a step is an outage, a slope a "
            "constant loss.",
            "percentunit",
            *(
                Target(
                    expr=q.budget_left(which),
                    legend=which,
                )
                for which in ("availability", "latency")
            ),
            thresholds=((None, RED), (0, RED)),
            marked=True,
            minimum=None,
            maximum=1,
        ),
        burning("availability"),
        burning("latency"),
    ]


def saturation() -> list[Panel]:
    """Show what is full: queue and batch against their limits."""
    return [
        lines(
            "Queue against its limit",
            "Where the dashed line is reached, callers are turned away.",
            "short",
            Target(expr=q.total("sd_queue_depth"), legend="waiting"),
            Target(expr=q.total("sd_queue_limit"), legend="limit"),
            overrides=[*colored({"waiting": BLUE}), limit("limit")],
            width=6,
        ),
        lines(
            "Batch against its cap",
            "Pictures in one denoising step, and the configured cap. At the cap with jobs waiting, "
            "the GPU is full; below it with jobs waiting, their sizes cannot share a batch, or "
            "memory ran out: the engine then halves the batches of that size for a while.",
            "short",
            Target(expr=q.total("sd_batch_live_images"), legend="in the batch"),
            Target(expr=q.total("sd_jobs_running"), legend="jobs in the engine"),
            Target(expr=q.total("sd_batch_limit"), legend="cap"),
            overrides=[
                *colored({"in the batch": BLUE, "jobs in the engine": "purple"}),
                limit("cap"),
            ],
            width=6,
        ),
        lines(
            "Age of the oldest waiting job",
            "A line that climbs by a second per second is a queue that nobody drains.",
            "s",
            Target(
                expr=q.most("sd_queue_oldest_job_age_seconds", by="instance"),
                legend="{{instance}}",
            ),
            width=6,
        ),
        lines(
            "Requests being answered",
            "Callers that hold a connection: those who wait for a picture, and all others. More "
            "than queue and batch together hold slow uploads or slow readers.",
            "short",
            Target(
                expr=q.total("sd_http_requests_in_flight", by="instance"), legend="{{instance}}"
            ),
            width=6,
            top=4,
        ),
    ]


def causes() -> list[Panel]:
    """Show where time and jobs are lost, and what the engine went through."""
    words: Words = {
        5: Word(text="ready", color=GREEN),
        4: Word(text="loading", color=BLUE),
        3: Word(text="restarting", color=ORANGE),
        2: Word(text="circuit_open", color=DARK_RED),
        1: Word(text="failed", color=RED),
        0: Word(text="stopped", color=GREY),
        -1: Word(text="DOWN", color=DARK_RED),
    }
    state = " + ".join(
        f"""{value} * {q.most("sd_engine_state", f'state="{word.text}"', by="instance")}"""
        for value, word in words.items()
        if isinstance(value, int) and value > 0
    )
    return [
        lines(
            "GPU time by what became of it",
            "Share of the GPU's time. Useful became a picture; of the rest, padding wants "
            "requests of equal size, lost and retried an engine that stays up, the others "
            "callers with more patience or a shorter queue.",
            "percentunit",
            Target(
                expr=f"{q.rate('sd_gpu_seconds_total', by='use')}"
                f" / ignoring (use) group_left {q.rate('sd_gpu_seconds_total')}",
                legend="{{use}}",
            ),
            overrides=colored(
                {
                    "useful": GREEN,
                    "failed": RED,
                    "lost": DARK_RED,
                    "retried": "yellow",
                    "timed_out": ORANGE,
                    "client_gone": "purple",
                    "cancelled": GREY,
                    "padding": BLUE,
                }
            ),
            stacked=True,
            maximum=1,
        ),
        lines(
            "Failed jobs by code",
            "out_of_memory: see the GPU dashboard. engine_crashed: see the restarts beside. "
            "generation_failed and internal_error: the log has the reason. answer failed: the "
            "picture was made and never reached its caller; the log has request_failed.",
            "opm",
            Target(
                expr=f"""60 * {q.rate("sd_jobs_total", 'outcome="failed"', by="code")}""",
                legend="{{code}}",
            ),
            Target(expr=f"60 * {q.rate('sd_answers_failed_total')}", legend="answer failed"),
            stacked=True,
            bars=True,
            top=1,
        ),
        states(
            "Engine",
            "Was the engine there when it mattered? Restarting that comes back again and again is "
            "a crash loop; circuit_open is one that new work is kept away from.",
            words,
            Target(
                expr=f"({state})\nor (sum by (instance) ({q.metric('up')}) * 0 - 1)",
                legend="{{instance}}",
            ),
        ),
        bars(
            "GPU time wasted, in this time range",
            "The waste in GPU-seconds: what there is to win by curing one cause.",
            "s",
            Target(
                expr=q.grown("sd_gpu_seconds_total", 'use!="useful"', by="use"),
                legend="{{use}}",
            ),
            width=6,
        ),
        restarts(
            "Each takes down the pictures in flight, which are then made again. stalled: a kernel "
            "hung; killed: the system, often for memory; crashed: a CUDA error; garbage: it said "
            "what cannot be true; load_failed: the model could not be loaded again.",
            width=6,
        ),
        lines(
            "Silence of the engine",
            "While it loads or has work the engine says at every stage and step that it lives. A "
            "line that climbs by a second per second is a hang: first the service is not ready, "
            "then the engine is killed and started again.",
            "s",
            Target(
                expr=q.most("sd_engine_heartbeat_age_seconds", by="instance"),
                legend="{{instance}}",
            ),
            width=6,
            top=1,
        ),
        lines(
            "p95 time to answer, by route",
            "Slow /health or /metrics means that the event loop is held up, whatever the GPU "
            "does; slow /generate alone is the GPU or the queue.",
            "s",
            Target(
                expr=q.quantile(0.95, "sd_http_request_duration_seconds", by="route"),
                legend="{{route}}",
                exemplar=True,
            ),
            width=6,
        ),
        text(
            "From a dot to the log",
            "Where the link in an exemplar leads: the request id that it carries.",
            "Request id: ${request_id}\n\nEvery log line of that request has it in the field "
            "`request_id`, and the answer had it in the header `X-Request-ID`. Search the "
            "service's log for it, for example with `docker compose logs` and `grep -F`.",
            width=24,
            height=3,
        ),
    ]
