"""Jobs that are kept on the disk: a row of the dashboard of the service."""

from typing import Final

from dashboards import queries as q
from dashboards.kinds import lines
from dashboards.panel import BLUE, GREEN, GREY, ORANGE, RED, Panel, Target, colored

STATES: Final = {
    "queued": BLUE,
    "running": ORANGE,
    "succeeded": GREEN,
    "failed": RED,
    "cancelled": GREY,
}
UPLOADS: Final = {"received": BLUE, "kept": GREEN, "broken": ORANGE, "refused": RED}
ATTEMPTS: Final = {"delivered": GREEN, "retried": ORANGE, "failed": RED}


def kept() -> list[Panel]:
    """Show whether jobs come to the disk, what is there, and who has heard of it."""
    commit = "sd_store_commit_duration_seconds"
    return [
        lines(
            "Job store commit duration",
            "On average, until an accepted job, a start or an end is on the disk; a 202 waits for "
            "it. Tens of milliseconds are a slow disk, seconds are somebody who holds the file.",
            "s",
            Target(expr=q.mean(commit, by="instance"), legend="{{instance}}"),
            width=8,
        ),
        lines(
            "Job store failures",
            "By what was wrong, per minute. Above 0: jobs are refused with 503, and ends are "
            "written again and again until they are kept.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_store_failures_total', by='reason')}", legend="{{reason}}"
            ),
            stacked=True,
            bars=True,
            top=1,
            width=8,
        ),
        lines(
            "Jobs kept by state",
            "What GET /jobs can show. They are removed by age (RESULTS_MAX_AGE_SECONDS) or to make "
            "room (RESULTS_MAX_BYTES); failed and cancelled ones also by "
            "JOBS_WITHOUT_IMAGES_MAX_AGE_SECONDS and JOBS_WITHOUT_IMAGES_MAX.",
            "none",
            Target(expr=q.total("sd_jobs_kept", by="state"), legend="{{state}}"),
            overrides=colored(STATES),
            stacked=True,
            width=8,
        ),
        lines(
            "Damaged data",
            "Above 0: something else wrote into DATA_DIR, or its disk fails. Rows set aside stay "
            "until somebody takes them away; images are counted when they are asked for.",
            "none",
            Target(expr=q.total("sd_store_rows_set_aside"), legend="rows set aside"),
            Target(
                expr=f"3600 * {q.rate('sd_results_damaged_total')}", legend="damaged images an hour"
            ),
            top=1,
            width=8,
        ),
        lines(
            "Images kept",
            "Together with the input images of their jobs. At the limit the oldest are removed "
            "before their time: clients that come late find 410.",
            "bytes",
            Target(expr=q.total("sd_results_bytes"), legend="kept"),
            Target(expr=q.total("sd_inputs_bytes"), legend="input images"),
            Target(expr=q.total("sd_results_limit_bytes"), legend="limit"),
            overrides=colored({"kept": BLUE, "input images": GREEN, "limit": RED}),
            width=8,
        ),
        lines(
            "Images removed",
            "By age is as agreed; for room says that the space is too small for the traffic.",
            "Bps",
            Target(expr=q.rate("sd_results_removed_bytes_total", by="reason"), legend="{{reason}}"),
            overrides=colored({"age": GREY, "room": ORANGE}),
            stacked=True,
            width=8,
        ),
        lines(
            "Uploads on their way in",
            "Images that requests bring, until a job has them; without DATA_DIR until the job is "
            "over. At the limit further ones are refused: 429 for one key, 503 for all.",
            "bytes",
            Target(expr=q.total("sd_uploads_bytes"), legend="on their way"),
            Target(expr=q.total("sd_uploads_limit_bytes"), legend="limit"),
            overrides=colored({"on their way": BLUE, "limit": RED}),
            width=12,
        ),
        lines(
            "Uploads",
            "Per minute, by what became of them. Broken ones ended before they were whole: slow or "
            "lost clients. Received and not kept: their requests were refused, repeated, or had "
            "large bodies, which count, too.",
            "opm",
            Target(expr=f"60 * {q.rate('sd_uploads_total', by='outcome')}", legend="{{outcome}}"),
            overrides=colored(UPLOADS),
            bars=True,
            top=1,
            width=12,
        ),
        lines(
            "Webhook attempts",
            "Per minute. Retried ones come again with growing waits for an hour; failed ones are "
            "given up, and their clients must ask GET /jobs.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_webhook_attempts_total', by='outcome')}",
                legend="{{outcome}}",
            ),
            overrides=colored(ATTEMPTS),
            stacked=True,
            bars=True,
            top=1,
            width=8,
        ),
        lines(
            "Webhooks not delivered yet",
            "Those of jobs that are over. Many with an age that grows: nothing gets out of here, "
            "or one receiver is down; the log names the hosts. Waiting for a turn: a key has all "
            "the connections that one key gets, to receivers that answer late or never.",
            "none",
            Target(expr=q.total("sd_webhooks_pending"), legend="pending"),
            Target(expr=q.total("sd_webhooks_waiting"), legend="waiting for a turn"),
            width=8,
        ),
        lines(
            "Age of the oldest webhook",
            "Since the end of its job. It is given up after an hour.",
            "s",
            Target(expr=q.most("sd_webhook_oldest_pending_age_seconds"), legend="oldest"),
            width=8,
        ),
    ]
