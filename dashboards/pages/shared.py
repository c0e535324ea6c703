"""Panels that stand on two dashboards, each time under the words that fit the place."""

from collections.abc import Sequence
from typing import Final

from dashboards import queries as q
from dashboards.kinds import lines, tile
from dashboards.panel import BLUE, GREEN, GREY, ORANGE, RED, Panel, Target, colored
from service.core.outcome import Outcome

NO_IMAGE: Final[dict[str, str]] = {
    Outcome.FAILED: RED,
    Outcome.TIMED_OUT: ORANGE,
    Outcome.DISCONNECTED: "purple",
    Outcome.CANCELLED: GREY,
    Outcome.SHUT_DOWN: BLUE,
}
"""Colors of the jobs that ended without an image, by outcome."""


def gpu_share(
    title: str, description: str, which: str, thresholds: Sequence[tuple[float | None, str]]
) -> Panel:
    """Show the share of the GPU's time that went into the uses that ``which`` matches."""
    of_all = q.rate("sd_gpu_seconds_total")
    return tile(
        title,
        description,
        "percentunit",
        Target(expr=f"{q.rate('sd_gpu_seconds_total', which)} / {of_all}"),
        thresholds=thresholds,
        decimals=0,
    )


def restarts(description: str, *, width: int = 8) -> Panel:
    """Show when an engine ended by itself, and why: only what happened has a name."""
    name, over = "sd_engine_restarts_total", "$__rate_interval"
    none = f"{q.grown(name, over=over)} * 0"
    for label, value in (("engine", "any"), ("reason", "none")):
        none = f'label_replace({none}, "{label}", "{value}", "", "")'
    return lines(
        "Engine restarts by reason",
        description,
        "short",
        Target(
            expr=f"({q.grown(name, by='engine, reason', over=over)} > 0)\nor {none}",
            legend="engine {{engine}}: {{reason}}",
        ),
        overrides=colored({"engine any: none": GREEN}),
        stacked=True,
        bars=True,
        top=1,
        width=width,
    )
