"""Who uses the service: the last row of its dashboard, by the names of the API keys."""

from dashboards import queries as q
from dashboards.kinds import lines
from dashboards.panel import Panel, Target


def keys() -> list[Panel]:
    """Show what each key gets, what it costs, and what goes wrong for it."""
    seconds = "sd_key_gpu_seconds_total"
    key = "{{key}}"
    return [
        lines(
            "Images by key",
            "Who gets how many, per minute. Without keys all is anonymous; other stands for keys "
            "that are no longer in force.",
            "opm",
            Target(expr=f"60 * {q.rate('sd_key_images_total', by='key')}", legend=key),
            stacked=True,
        ),
        lines(
            "GPU time by key",
            "Share of the GPU's time, whatever became of it. One key far above its images asks "
            "for large ones or many steps, or gives up halfway: a case for its limits.",
            "percentunit",
            Target(
                expr=f"{q.rate(seconds, by='key')} / ignoring (key) group_left {q.rate(seconds)}",
                legend=key,
            ),
            stacked=True,
            maximum=1,
        ),
        lines(
            "Failed jobs by key",
            "Failed and timed out, per minute. One key alone: what it asks for; all of them: the "
            "engine. Requests refused before they become jobs are in 'Refused requests by reason'.",
            "opm",
            Target(
                expr=f"60 * {q.rate('sd_key_jobs_total', q.BAD_OUTCOMES, by='key')}", legend=key
            ),
            stacked=True,
            bars=True,
            top=1,
        ),
    ]
