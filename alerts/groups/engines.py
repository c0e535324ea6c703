"""Several engines: whether one is missing, whether they share the work, and what reaches them."""

from typing import Final

from alerts.groups.service import RESTARTS_TO_PAGE
from alerts.rule import COUNT, ENGINE, INSTANCE, Alert, Severity
from alerts.windows import Windows

AWAY: Final = "loading|restarting|failed|circuit_open"
"""States of an engine that is to work and does not. One that left its service is in no state."""

MUCH_LESS: Final = 0.5
"""Of the busiest engine's share of the time: chance and unequal jobs make less of a difference."""
BUSY: Final = 0.5
"""Of the time: where no engine has so much to do, nothing has to be shared."""

LATE_SECONDS: Final = 2
"""Each engine is asked every second; after 3 s without an answer it gets no new jobs."""
LOST_SECONDS: Final = 10
"""After so long an engine is lost, which SDEngineLost tells."""
UNSEEN_SECONDS: Final = 30
"""The driver looks at the cluster every 2 s."""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the alerts, the gravest first."""
    return (
        *(_driver_down(windows), _head_away(windows)),
        *(_lost(windows), _missing(windows), _unbalanced(windows), _leases_late(windows)),
    )


def _lost(windows: Windows) -> Alert:
    """Return the alert; where no engine works, SDNotReady and others page.

    Without the last known state, one scrape that fails would begin the time anew.
    """

    def any_in(matcher: str, by: str) -> str:
        of = f"sd_engine_state{{{matcher}}}[{windows.ready_gap}]"
        return f"max by ({by}) (last_over_time({of})) == 1"

    return Alert(
        name="SDEngineLost",
        severity=Severity.TICKET,
        expr=f"""
            {any_in(f'state=~"{AWAY}"', "job, instance, engine")}
            and on (job, instance) {any_in('state="ready"', "job, instance")}
        """,
        lasting=windows.engine_lost_for,
        summary=f"{ENGINE} does not work while others do",
        description=f"{ENGINE} has not been ready for {windows.engine_lost_for}: it loads, is "
        "started again and again, or cannot load its model. The other engines do its work, and "
        "requests wait longer.",
        dashboard="sd-service",
    )


def _unbalanced(windows: Windows) -> Alert:
    window = windows.balance
    share = f"sum by (job, instance, engine) (rate(sd_gpu_seconds_total[{window}]))"
    busiest = f"max by (job, instance) ({share})"
    return Alert(
        name="SDEnginesUnbalanced",
        severity=Severity.TICKET,
        expr=f"""
            {share}
              < on (job, instance) group_left () (
                {MUCH_LESS} * {busiest}
              )
            and on (job, instance) {busiest} > {BUSY}
            and on (job, instance) min_over_time(sd_queue_depth[{window}]) > 0
            and on (job, instance, engine)
              min_over_time(sd_engine_state{{state="ready"}}[{window}]) == 1
        """,
        lasting=windows.balance_for,
        summary=f"{ENGINE} has little to do while jobs wait",
        description=f"{ENGINE} computed for {{{{ $value | humanizePercentage }}}} of the last "
        f"{window}, less than half as much as the busiest engine, although it was ready and jobs "
        "waited all the time. What waits does not fit it, or it loses its time otherwise.",
        dashboard="sd-service",
    )


def _driver_down(windows: Windows) -> Alert:
    restarts = f"increase(sd_cluster_driver_restarts_total[{windows.restarts}])"
    return Alert(
        name="SDClusterDriverDown",
        severity=Severity.PAGE,
        expr=f"""
            sum by (job, instance) ({restarts}) > {RESTARTS_TO_PAGE}
            or max by (job, instance) (sd_cluster_driver_up) == 0
        """,
        lasting=windows.down_for,
        summary=f"{INSTANCE} does not reach its cluster",
        description="{{ if eq $value 0.0 }}The driver of the cluster does not answer"
        f"{{{{ else }}}}The driver of the cluster was started again {COUNT} times in "
        f"{windows.restarts}{{{{ end }}}}: "
        "engines get no new work. What they have in work goes on for some seconds and is run "
        "again if that is not enough.",
        dashboard="sd-service",
    )


def _head_away(windows: Windows) -> Alert:
    return Alert(
        name="SDClusterHeadAway",
        severity=Severity.PAGE,
        expr=f"max by (job, instance) (sd_cluster_seen_age_seconds) > {UNSEEN_SECONDS}",
        lasting=windows.down_for,
        summary=f"{INSTANCE} does not see its cluster",
        description="The head of the cluster has not answered for {{ $value | humanizeDuration }}. "
        "Engines work on, but none joins; after five minutes their machines end them all.",
        dashboard="sd-service",
    )


def _missing(windows: Windows) -> Alert:
    """Return the alert; of engines that a machine took with it, and of those that never came.

    A machine that was drained, and is not there any more, is not missed.
    """
    by = "by (job, instance)"
    there = f"max {by} (sd_cluster_places)"
    before = f"max {by} (max_over_time(sd_cluster_places[{windows.engine_missed}]))"
    lost = f"sum {by} (increase(sd_cluster_engines_lost_total[{windows.engine_missed}]))"
    return Alert(
        name="SDClusterEnginesMissing",
        severity=Severity.TICKET,
        expr=f"""
            {there} - sum {by} (sd_cluster_engines{{status!="leaving"}}) > 0
            or {before} - {there} > 0 and {lost} > 0
        """,
        lasting=windows.engine_lost_for,
        summary=f"{INSTANCE} misses engines of its cluster",
        description=f"{COUNT} of the engines that the cluster of {INSTANCE} offers, or offered "
        f"before a machine was lost in the last {windows.engine_missed}, are not there. The others "
        "do their work, and requests wait longer.",
        dashboard="sd-service",
    )


def _leases_late(windows: Windows) -> Alert:
    age = f"sd_cluster_lease_age_seconds[{windows.wait}]"
    return Alert(
        name="SDClusterLeasesLate",
        severity=Severity.TICKET,
        expr=f"""
            avg_over_time({age}) > {LATE_SECONDS}
            and max_over_time({age}) < {LOST_SECONDS}
        """,
        lasting=windows.leases_for,
        summary=f"{ENGINE} answers late",
        description=f"{ENGINE} last answered {{{{ $value | humanizeDuration }}}} ago, on average "
        f"over {windows.wait}; a second is normal. After {LOST_SECONDS} s its jobs run elsewhere.",
        dashboard="sd-service",
    )
