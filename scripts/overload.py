"""Prove what happens at ten times the load: measure the capacity, then send ten times as much.

Starts the service with the demo model on the loopback address. First some clients ask one
picture after the other, which shows what the service can do; then clients come ten times
as fast for a minute, whether or not others are served, with three keys. Who is refused comes
back exactly after the ``Retry-After`` it was told.

    python -m scripts.overload                     60 s of ten times the capacity
    python -m scripts.overload --seconds 10        shorter
    python -m scripts.overload --write             the outcome into docs/overload.md, too

Exit code 1: somebody got no answer, a wrong one, or one long after the deadline. Goals that
depend on the machine are named when they are missed; with --goals that is exit code 1, too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.drill.carried_out import carried_out
from scripts.overload_drill.drill import Outcome, Wish, run
from scripts.overload_drill.report import missed, problems, table
from scripts.overload_drill.visit import DEADLINES, SHARES

DOCUMENT = Path(__file__).parents[1] / "docs" / "overload.md"
MOST_NAMED = 10


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--seed", type=int, default=1)
    root.add_argument("--factor", type=float, default=10.0, help="times the capacity")
    root.add_argument("--seconds", type=float, default=60.0)
    root.add_argument("--capacity-seconds", type=float, default=20.0)
    root.add_argument("--places", type=int, default=64, metavar="N", help="QUEUE_SIZE")
    root.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
    root.add_argument("--write", action="store_true", help="write docs/overload.md")
    root.add_argument("--goals", action="store_true", help="a missed goal is a failure")
    return root


def document(given: argparse.Namespace, outcome: Outcome) -> str:
    """Return docs/overload.md."""
    shares = ", ".join(f"{name} {part:.0%}" for name, part in SHARES.items())
    deadlines = ", ".join(f"{seconds:g}" for seconds in DEADLINES)
    return f"""# {given.factor:g} times the capacity: what a drill shows

`python -m scripts.overload --seed {given.seed} --factor {given.factor:g} --seconds \
{given.seconds:g}`: the service with the demo model and its real engine process, and its clients,
on one machine. It made {outcome.capacity:.2f} pictures a second for clients that wait for each
other (256x256 to 384x384, 2 to 16 steps); then {len(outcome.visits)} clients came in
{given.seconds:g} s, whether or not others were served, by three keys ({shares}).
Each has a deadline of {deadlines} s, and who is refused comes back exactly when
told, if that is before the end. Written by the command itself, with `--write`.

{table(outcome)}

- The last columns: seconds from the first refusal until the request was let in, by those that
  were told at first ("Let in then": came back once and was let in); below a second no
  difference counts.
- "Left": told a time after the end of the drill; those times are not tested.
- /health is asked 20 times a second by a process of its own; a slow answer counts for the
  questions that it delayed, too.
"""


def _wish(given: argparse.Namespace, folder: Path) -> Wish:
    return Wish(
        seed=given.seed,
        factor=given.factor,
        seconds=given.seconds,
        capacity_seconds=given.capacity_seconds,
        places=given.places,
        folder=folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill; return its exit code."""
    given = parser().parse_args(arguments)
    outcome = carried_out("overload", given.folder, lambda folder: run(_wish(given, folder)))
    print(f"{outcome.capacity:.2f} pictures a second, alone\n\n{table(outcome)}\n")
    wrong, goals = list(problems(outcome)), list(missed(outcome))
    for problem in wrong[:MOST_NAMED]:
        print(f"FAILED: {problem}")
    for goal in goals:
        print(f"MISSED: {goal}")
    if given.write:
        DOCUMENT.write_text(document(given, outcome), encoding="utf-8")
    return 1 if wrong or (given.goals and goals) else 0


if __name__ == "__main__":
    sys.exit(main())
