"""The lower half of the service's dashboard: objectives, saturation, causes."""

from dashboards import queries as q
from dashboards.kinds import bars, lines, text
from dashboards.pages.shared import NO_IMAGE
from dashboards.panel import (
    BLUE,
    DARK_RED,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Panel,
    Target,
    colored,
    limit,
)


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
            "Queue depth and limit",
            "At the dashed line, new requests are refused.",
            "short",
            Target(expr=q.total("sd_queue_depth"), legend="waiting"),
            Target(expr=q.total("sd_queue_limit"), legend="limit"),
            overrides=[*colored({"waiting": BLUE}), limit("limit")],
            width=8,
        ),
        lines(
            "Batch size and limit",
            "Images in one denoising step, and the configured cap. At the cap with jobs waiting, "
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
            width=8,
        ),
        lines(
            "Age of the oldest waiting job",
            "A line that climbs by a second per second means that no engine takes jobs.",
            "s",
            Target(
                expr=q.most("sd_queue_oldest_job_age_seconds", by="instance"),
                legend="{{instance}}",
            ),
            width=8,
        ),
        lines(
            "Requests in flight",
            "Callers that hold a connection: those who wait for an image, and all others. More "
            "than queue and batch together hold slow uploads or slow readers.",
            "short",
            Target(
                expr=q.total("sd_http_requests_in_flight", by="instance"), legend="{{instance}}"
            ),
            width=12,
            top=4,
        ),
        lines(
            "Connections and limit",
            "At the dashed line, with all connections busy, new ones are refused. Event "
            "streams stay open as long as the jobs that they follow.",
            "short",
            Target(expr=q.total("sd_connections"), legend="open"),
            Target(expr=q.total("sd_event_streams"), legend="event streams"),
            Target(expr=q.total("sd_connections_limit"), legend="limit"),
            overrides=[*colored({"open": BLUE, "event streams": "purple"}), limit("limit")],
            width=12,
        ),
    ]


def causes() -> list[Panel]:
    """Show where time and jobs are lost."""
    return [
        lines(
            "GPU time by use",
            "Share of the GPU's time. Useful became an image; of the rest, lost and "
            "retried want an engine that stays up, the others callers with more patience or a "
            "shorter queue.",
            "percentunit",
            Target(
                expr=f"{q.rate('sd_gpu_seconds_total', by='use')}"
                f" / ignoring (use) group_left {q.rate('sd_gpu_seconds_total')}",
                legend="{{use}}",
            ),
            overrides=colored(
                {
                    "useful": GREEN,
                    **NO_IMAGE,
                    "lost": DARK_RED,
                    "retried": "yellow",
                }
            ),
            stacked=True,
            maximum=1,
        ),
        lines(
            "Failed jobs by code",
            "out_of_memory: see the GPU dashboard. engine_crashed: see the engine restarts. "
            "generation_failed and internal_error: the log has the reason. storage_full and "
            "storage_unavailable: the folder of results did not take the images. answer failed: "
            "the image was made and never reached its caller; the log has request_failed.",
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
        bars(
            "GPU time wasted in this time range",
            "GPU-seconds that became no image, by cause: what you save by fixing it.",
            "s",
            Target(
                expr=q.grown("sd_gpu_seconds_total", 'use!="useful"', by="use"),
                legend="{{use}}",
            ),
        ),
        lines(
            "p95 response time by route",
            "Slow /health or /metrics means that the event loop is held up, whatever the GPU "
            "does; slow /generate alone is the GPU or the queue.",
            "s",
            Target(
                expr=q.quantile(0.95, "sd_http_request_duration_seconds", by="route"),
                legend="{{route}}",
                exemplar=True,
            ),
        ),
        lines(
            "Threads busy",
            "Share of the threads for one kind of blocking call. 100 % for minutes: names is a "
            "name server that does not answer, storage a disk, images and conversions a lack of "
            "CPU. Above 100 %: keys without a call got a thread beyond the limit.",
            "percentunit",
            Target(
                expr=f"{q.total('sd_executor_busy_threads', by='executor')}"
                f" / {q.total('sd_executor_threads', by='executor')}",
                legend="{{executor}}",
            ),
            top=1,
        ),
        lines(
            "Calls waiting for a thread",
            "Above 0 with threads to spare: one key has its share of them, and waits for itself.",
            "none",
            Target(expr=q.total("sd_executor_waiting_calls", by="executor"), legend="{{executor}}"),
            top=1,
        ),
        lines(
            "Log lines dropped",
            "Per minute. Above 0 the log has gaps: nobody reads standard error, or not as fast as "
            "it is written. Requests do not wait for it.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_log_lines_dropped_total', by='instance')}",
                legend="{{instance}}",
            ),
            width=12,
            height=6,
            top=1,
        ),
        text(
            "Log lines of a request",
            "Where the link in an exemplar leads: the request id that it carries.",
            "Request id: ${request_id}\n\nEvery log line of that request has it in the field "
            "`request_id`, and the answer had it in the header `X-Request-ID`. Search the "
            "service's log for it, for example with `docker compose logs` and `grep -F`.",
            width=12,
            height=6,
        ),
    ]
