"""Prove the monitoring: break a real service in every way there is an alert for.

Starts the service with the demo model, a stand-in for the GPU's driver, Prometheus,
Alertmanager and a webhook, all on the loopback address; makes traffic; commits one fault
after the other; and prints a table: fault, alert, fired, delivered, inhibited, resolved.

    python -m tests.drills.monitoring                      everything, panels and metrics
    python -m tests.drills.monitoring --only oom_denoise   one fault (may be repeated)
    python -m tests.drills.monitoring --quiet-run 10       no fault: nothing may fire
    python -m tests.drills.monitoring --write              the table into docs/, too

The rules have short windows, from the same generator; targets, intervals and receivers'
addresses are the only other differences to production. Exit code 1: something failed.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from alerts.windows import NORMAL
from service.errors import ConfigError
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.monitoring.checks import Found, metrics, panels
from tests.drills.monitoring.faults import ALL
from tests.drills.monitoring.rows import Row, committed, table
from tests.drills.monitoring.scene import Scene, scene_in
from tests.support.monitoring.stack import WATCHDOG, missing_programs
from tests.support.wait import TooLateError, until


@dataclass(kw_only=True)
class Outcome:
    rows: list[Row] = field(default_factory=list)
    panels: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    """Alerts that fired though no fault was committed."""
    notes: list[str] = field(default_factory=list)
    """What else was seen: queries without data that cannot have any here, and why."""

    def unalerted(self) -> Iterator[str]:
        return (f"{row.fault}: {row.problem}" for row in self.rows if row.problem)

    def json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "passed": not row.problem} for row in self.rows]
        return {**asdict(self), "rows": rows}


async def run(given: Given, folder: Path) -> Outcome:
    """Commit the faults, or none for a while."""
    outcome = Outcome()
    if given.quiet_run:
        async with scene_in(folder, normal=NORMAL, seconds=15) as scene:
            await _quiet(scene, given.quiet_run * 60, outcome)
        return outcome
    async with scene_in(folder) as scene:
        print(f"one small step: {scene.step_seconds:.3f} s; logs in {folder}", flush=True)
        for fault in ALL:
            if given.only is None or fault.name in given.only:
                outcome.rows.append(await committed(scene, fault))
                print(outcome.rows[-1], flush=True)
        if given.only is None:
            await _look(panels(scene), outcome.panels, outcome.notes)
            await _look(metrics(scene), outcome.metrics, outcome.notes)
    return outcome


async def _look(found: Found, problems: list[str], notes: list[str]) -> None:
    """Sort what was found out by whether it has an excuse."""
    count = 0
    async for where, problem, excuse in found:
        count += 1
        if problem and excuse:
            notes.append(f"not here: {where}: {excuse}")
        elif problem:
            problems.append(f"{where}: {problem}")
    notes.append(f"looked for {count}: {len(problems)} missing")


async def _quiet(scene: Scene, seconds: float, outcome: Outcome) -> None:
    """Work normally for so long; note the alerts that fired, but for the one that always does."""
    begun = time.monotonic()

    async def loud() -> bool:
        return bool(scene.stack.seen.names("firing") - {WATCHDOG})

    with suppress(TooLateError):  # As it shall be.
        await until(loud, seconds, "an alert")
    minutes = (time.monotonic() - begun) / 60
    outcome.fired = sorted(scene.stack.seen.names("firing") - {WATCHDOG})
    pending = sorted(scene.stack.seen.names("pending") - {WATCHDOG})
    outcome.notes = [
        f"{minutes:.1f} minutes, {scene.traffic.served} images",
        f"fired: {', '.join(outcome.fired) or 'nothing'}",
        f"about to fire at some time: {', '.join(pending) or 'nothing'}",
    ]


def described(outcome: Outcome) -> str:
    """Return the table of the faults, and what else was seen."""
    return "\n\n".join((table(outcome.rows), *(f"- {note}" for note in outcome.notes)))


def options(root: argparse.ArgumentParser) -> None:
    names = [fault.name for fault in ALL]
    known = "\n".join(f"{fault.name:22}{fault.title}" for fault in ALL)
    root.add_argument("--only", action="append", choices=names, metavar="NAME", help="one fault")
    root.add_argument("--list", action="version", version=known, help="name the faults and end")


def refuse(given: Given) -> None:
    """Raise ConfigError where a program is missing, or the page would lose its table."""
    if missing := missing_programs():
        raise ConfigError(f"not installed: {', '.join(missing)}")
    if given.write and (given.only or given.quiet_run):
        raise ConfigError("--write: not with --only or --quiet-run; the page is about all faults")


DRILL: Final = Drill(
    command="tests.drills.monitoring",
    about=__doc__,
    page="monitoring-drill",
    numbers=(Number(name="quiet-run", default=0.0, about="minutes of normal load, no fault"),),
    run=run,
    checks={
        "every fault raises its alert, which is delivered and ends": Outcome.unalerted,
        "every panel has data": lambda outcome: outcome.panels,
        "every metric appears and moves": lambda outcome: outcome.metrics,
        "normal work raises no alert": lambda outcome: outcome.fired,
    },
    described=described,
    data=Outcome.json,
    options=options,
    refuse=refuse,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
