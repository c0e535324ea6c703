"""Prove that nothing accepted is lost: kill engine and service while clients order pictures.

Starts the service with the demo model on the loopback address. Clients order pictures and
keep books of what they are told; meanwhile engines and whole services are killed at random
moments. In the end the clients' books must balance: each accepted order is finished, failed
with a reason or cancelled as asked; none is lost, none is delivered twice.

    python -m scripts.chaos                         200 orders, 20 engines, 10 services
    python -m scripts.chaos --seed 7 --jobs 40 --engine-kills 4 --service-kills 2
    python -m scripts.chaos --write                 the outcome into docs/chaos.md, too

Orders, kinds of kills and waits follow from the seed; what a kill meets depends on the machine.
Exit code 1: a check failed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.chaos_drill.checks import MOST_NAMED, verdicts
from scripts.chaos_drill.drill import Outcome, Wish, run
from scripts.chaos_drill.table import passed, table
from scripts.drill.carried_out import carried_out

DOCUMENT = Path(__file__).parents[1] / "docs" / "chaos.md"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--seed", type=int, default=1)
    root.add_argument("--jobs", type=int, default=200, metavar="N", help="orders, at least")
    root.add_argument("--engine-kills", type=int, default=20, metavar="N")
    root.add_argument("--service-kills", type=int, default=10, metavar="N")
    root.add_argument(
        "--minutes", type=float, default=20.0, help="no kill and no new order after them"
    )
    root.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
    root.add_argument("--write", action="store_true", help="write docs/chaos.md")
    root.add_argument(
        "--module",
        default="service",
        help="what Python runs as the service; one that loses jobs must fail the checks",
    )
    return root


def document(command: str, outcome: Outcome) -> str:
    """Return docs/chaos.md."""
    return f"""# Nothing accepted is lost: what a drill shows

`{command}` (also `make chaos`): the service with the demo model and its real engine process, on the
loopback address. {_described(outcome)} The counts are the clients' own; the service is not asked
how it went. Written by the command itself, with `--write`.

{table(outcome)}

- A client that gets no answer sends the same request with the same `Idempotency-Key` again; one
  that is refused comes back after `Retry-After`.
- A kill counts as an attempt of every job in the batch, whether it ends the engine or the whole
  service; a job that was started `MAX_ATTEMPTS` times and never ended is failed as poison.
- A webhook whose receiver did not answer is sent again with the same `Webhook-Id`: one delivery.
- "The same picture": at most 0.02 % of its values differ, by 1 of 255, since pictures share their
  batch with others.
"""


def _described(outcome: Outcome) -> str:
    accounts = outcome.ledger.accounts.values()
    told = sum("webhook" in account.order.body for account in accounts)
    hurried = sum("timeout_seconds" in account.order.body for account in accounts)
    doubtful = sum(account.cancel_asked for account in accounts)
    return (
        f"{len(accounts)} orders of 256x256 to 256x384 with 2 to 8 steps; {told} have a webhook, "
        f"{hurried} a deadline of 0.3 to 4 s, {doubtful} are cancelled by their clients. Meanwhile "
        f"{len(outcome.kills)} kills, a quarter of them before the service had recovered from the "
        "last one."
    )


def _wish(given: argparse.Namespace, folder: Path) -> Wish:
    return Wish(
        seed=given.seed,
        jobs=given.jobs,
        engine_kills=given.engine_kills,
        service_kills=given.service_kills,
        minutes=given.minutes,
        module=given.module,
        folder=folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill; return its exit code."""
    given = parser().parse_args(arguments)
    if given.folder is not None and (given.folder / "data").exists():
        parser().error(f"--folder {given.folder}: an earlier drill's jobs are there; take another")
    outcome = carried_out("chaos", given.folder, lambda folder: run(_wish(given, folder)))
    print(table(outcome))
    for name, problems in verdicts(outcome.ledger).items():
        for problem in problems[:MOST_NAMED]:
            print(f"FAILED: {name}: {problem}")
    if given.write:
        command = f"python -m scripts.chaos --seed {given.seed} --jobs {given.jobs}"
        command += f" --engine-kills {given.engine_kills} --service-kills {given.service_kills}"
        DOCUMENT.write_text(document(command, outcome), encoding="utf-8")
    return 0 if passed(outcome) else 1


if __name__ == "__main__":
    sys.exit(main())
