"""Prove the monitoring: break a real service in every way there is an alert for.

Starts the service with the demo model, a stand-in for the GPU's driver, Prometheus,
Alertmanager and a webhook, all on the loopback address; makes traffic; commits one fault
after the other; and prints a table: fault, alert, fired, delivered, inhibited, resolved.

    python -m scripts.monitoring_drill                      everything, and all panels
    python -m scripts.monitoring_drill --only oom_denoise   one fault (may be repeated)
    python -m scripts.monitoring_drill --quiet-run 10       no fault: nothing may fire
    python -m scripts.monitoring_drill --keep --urls FILE   stay until Ctrl-C

The rules have short windows, from the same generator; targets, intervals and receivers'
addresses are the only other differences to production. Exit code 1: something failed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alerts.windows import NORMAL
from scripts.drill.carried_out import carried_out
from scripts.drill.catalog import ALL
from scripts.drill.names import Names, dashboard_queries, rule_queries
from scripts.drill.panels import exemplars, panels
from scripts.drill.quiet import quiet_run
from scripts.drill.rows import Drill, Row
from scripts.drill.stack import missing_programs
from scripts.drill.table import line, table
from scripts.drill.world import World, world


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.monitoring_drill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [fault.name for fault in ALL]
    root.add_argument("--only", action="append", choices=names, metavar="NAME", help="one fault")
    root.add_argument("--list", action="store_true", help="name the faults and end")
    root.add_argument("--quiet-run", type=float, metavar="MINUTES", help="normal load, no fault")
    root.add_argument(
        "--panels",
        action=argparse.BooleanOptionalAction,
        help="check names and panels too; without --only that is so anyway",
    )
    root.add_argument("--keep", action="store_true", help="leave all running until Ctrl-C")
    root.add_argument("--urls", type=Path, metavar="FILE", help="with --keep: addresses, as JSON")
    root.add_argument("--report", type=Path, metavar="FILE", help="the outcome as JSON")
    root.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
    return root


async def drill(given: argparse.Namespace, folder: Path) -> bool:
    """Do what the command line says; return whether all went well."""
    if given.quiet_run is not None:
        async with world(folder, normal=NORMAL, seconds=15) as ground:
            loud = await quiet_run(ground, given.quiet_run * 60)
            _report(given, {"quiet_minutes": given.quiet_run, "fired": loud})
            await _keep(given, ground)
        return not loud
    chosen = [fault for fault in ALL if given.only is None or fault.name in given.only]
    rows: list[Row] = []
    async with world(folder) as ground:
        print(f"one small step: {ground.scene.step_seconds:.3f} s; logs in {folder}", flush=True)
        committed = Drill(ground.scene, ground.stack, ground.watch)
        for fault in chosen:
            rows.append(await committed.row(fault))
            print(line(rows[-1]), flush=True)
        wanted = given.only is None if given.panels is None else given.panels
        checked = await _check(ground) if wanted else {}
        print("\n" + table(rows))
        problems: list[str] = checked.get("problems", [])
        for problem in problems:
            print(f"FAILED: {problem}")
        for excused in checked.get("excused", []):
            print(f"not here: {excused}")
        _report(given, {"rows": [row.json() for row in rows], **checked})
        await _keep(given, ground)
    return all(row.passed for row in rows) and not problems


async def _check(ground: World) -> dict[str, Any]:
    """Check names, panels and exemplars."""
    names = Names(ground.stack, ground.begun)
    problems = await names.problems(dashboard_queries())
    problems += await names.problems(rule_queries(ground.rules))
    asked = await panels(ground.stack, ground.begun, ground.windows, seconds=1)
    kept = await exemplars(ground.stack, ground.begun)
    if not kept:
        problems.append("no exemplar leads to a request")
    where = {id(each): f"{each.dashboard}: {each.panel} {each.query}" for each in asked}
    print(f"\n{len(asked)} queries of panels asked, {kept} exemplars kept")
    return {
        "panels": [asdict(each) for each in asked],
        "exemplars": kept,
        "problems": problems + [f"{where[id(p)]}: {p.problem}" for p in asked if p.problem],
        "excused": [f"{where[id(p)]}: {p.excused}" for p in asked if p.excused],
    }


def _report(given: argparse.Namespace, content: dict[str, Any]) -> None:
    if given.report is not None:
        given.report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


async def _keep(given: argparse.Namespace, ground: World) -> None:
    """Stay, with normal load, until Ctrl-C."""
    if not given.keep:
        return
    addresses = {
        "service": ground.scene.service.url,
        "prometheus": ground.stack.prometheus,
        "alertmanager": ground.stack.alertmanager,
        "webhook": ground.stack.receiver.url,
        "begun": ground.begun,
        "ready": time.time(),
    }
    text = json.dumps(addresses, indent=2)
    if given.urls is not None:
        draft = given.urls.with_name(given.urls.name + ".new")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(given.urls)  # Who waits for the file finds all of it.
    print(f"\n{text}\nkept until Ctrl-C", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        # That is how it ends; the exit code says how the drill went.
        if (task := asyncio.current_task()) is not None:
            task.uncancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill; return its exit code."""
    given = parser().parse_args(arguments)
    if given.list:
        print("\n".join(f"{fault.name:22}{fault.title}" for fault in ALL))
        return 0
    if missing := missing_programs():
        print(f"drill: not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    went_well = carried_out("drill", given.folder, lambda folder: drill(given, folder))
    return 0 if went_well else 1


if __name__ == "__main__":
    sys.exit(main())
