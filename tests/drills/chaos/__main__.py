"""Prove that nothing accepted is lost: kill engine and service while clients order images.

Starts the service with the demo model on the loopback address. Clients order images and
note in a ledger what they are told; meanwhile engines and whole services are killed at random
moments. In the end the ledger must balance: each accepted order is finished, failed
with a reason or cancelled as asked; none is lost, none is delivered twice.

    python -m tests.drills.chaos                         200 orders, 20 engines, 10 services
    python -m tests.drills.chaos --seed 7 --jobs 40 --engine-kills 4 --service-kills 2
    python -m tests.drills.chaos --engines 2 --module tests.support.fake_worker
    python -m tests.drills.chaos --write                 the outcome into docs/chaos.md, too

Orders, kinds of kills and waits follow from the seed; what a kill meets depends on the machine.
Exit code 1: a check failed.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

from scripts.written import table
from service.errors import ConfigError
from tests.drills.chaos.checks import CHECKS, POISON
from tests.drills.chaos.killer import Killer, plan
from tests.drills.chaos.patient import Patient, orders
from tests.drills.common import report
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.common.ledger import Kill, Ledger, Order
from tests.drills.common.webhooks import SECRET, Receiver
from tests.support.load_client import client_of
from tests.support.receiver import receiving
from tests.support.service_process import ServiceProcess, service_in
from tests.support.wait import TooLateError, until

MAX_ATTEMPTS: Final = 3
SETTINGS: Final = {
    **report.SETTINGS,
    "MAX_CONCURRENT_REQUESTS": "3",
    "QUEUE_SIZE": "10",
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    "REQUEST_TIMEOUT_SECONDS": "900",
    "ENGINE_STALL_SECONDS": "15",
    "WEBHOOK_SECRET": SECRET,
}
"""Few places, so that some are refused; a deadline that only orders with one of their own meet."""

CLIENTS: Final = 16
SETTLE_SECONDS: Final = 300.0
"""For what is open after the last kill; reached only when something is lost."""

TOLD_SECONDS: Final = 120.0
"""For webhooks on their way: a receiver that was not ready is asked again after 5, 10, 20 s."""

SWEPT_SECONDS: Final = 180.0
"""For images that no job has: those of the last minute are not touched, once a minute."""

SAMPLE: Final = 12


class Desk:
    """Hands out orders as long as there are kills to come, and a least number of them."""

    def __init__(self, coming: Iterator[Order], least: int) -> None:
        self._coming = coming
        self.unsent = least
        """Orders that are missing to the least number."""
        self.closing = False
        """Whether no more is handed out than the least number."""
        self.closed = False
        """Whether nothing is handed out any more."""

    def take(self) -> Order | None:
        """Return the next order; None when there is none for anybody any more."""
        if self.closed or (self.closing and not self.unsent):
            return None
        self.unsent = max(0, self.unsent - 1)
        return next(self._coming)


async def run(given: Given, folder: Path) -> Ledger:
    """Let clients order and the killer kill, and look at what is left."""
    ledger, begun = Ledger(max_attempts=MAX_ATTEMPTS), time.monotonic()
    receiver = Receiver(ledger, random.Random(given.seed))
    async with (
        receiving(receiver.accept) as address,
        service_in(folder, module=given.module, ENGINES=given.engines, **SETTINGS) as service,
        client_of(service.url) as client,
    ):
        await service.start()
        patient = Patient(client, ledger, given.seed)
        await _disturbed(given, ledger, service, patient, orders(given.seed, address))
        receiver.calm = True
        await service.ready()
        await _settled(ledger, patient)
        jobs = await client.listed()
        ledger.listed = {
            job: (each.get("metadata") or {}).get("seed") for job, each in jobs.items()
        }
        await _swept(folder, ledger)
        ledger.inputs = _inputs(folder)
        finished = [account for account in ledger.taken if account.png]
        sample = random.Random(given.seed).sample(finished, min(SAMPLE, len(finished)))
        async with asyncio.timeout(SETTLE_SECONDS):
            for account in sample:
                ledger.calm[account.order.number] = await patient.compare(account)
        await patient.delete_all()
        ledger.left = _inputs(folder)
    ledger.seconds = time.monotonic() - begun
    return ledger


async def _swept(folder: Path, ledger: Ledger) -> None:
    """Wait for the sweep where a kill left images whose job had not been accepted yet."""

    async def clean() -> bool:
        return all(name.partition(".")[0] in ledger.listed for name in _inputs(folder))

    with suppress(TooLateError):  # The checks say which are left.
        await until(clean, SWEPT_SECONDS, "the sweep")


def _inputs(folder: Path) -> set[str]:
    """Return the files of input images in a service's folder."""
    return {path.name for path in (folder / "data" / "inputs").iterdir()}


async def _disturbed(
    given: Given,
    ledger: Ledger,
    service: ServiceProcess,
    patient: Patient,
    coming: Iterator[Order],
) -> None:
    """Go on until all orders are over."""
    chance, desk = random.Random(given.seed), Desk(coming, given.jobs)

    async def client() -> None:
        while (order := desk.take()) is not None:
            await patient.get_served(order)

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(given.minutes * 60):
                blows = plan(chance, given.engine_kills, given.service_kills)
                await Killer(service, ledger, chance).rage(blows)
                desk.closing = True
                await asyncio.wait(clients)
        desk.closed = True
        if not service.running:  # The time was over in the midst of a restart.
            await service.start()
        await asyncio.wait(clients, timeout=SETTLE_SECONDS)
        ledger.unsent = desk.unsent
    finally:
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _settled(ledger: Ledger, patient: Patient) -> None:
    """Look at everything once more, when the webhooks have come and nothing is killed any more."""
    wanted = [a for a in ledger.taken if a.ends and "webhook" in a.order.body]

    async def all_told() -> bool:
        heard = {notice.job for notice in ledger.notices if not notice.refused}
        return all(set(account.ids) <= heard for account in wanted)

    with suppress(TooLateError):  # The checks say who was not told.
        await until(all_told, TOLD_SECONDS, "the webhooks")
    for account in ledger.taken:
        async with asyncio.timeout(SETTLE_SECONDS):
            await patient.look_again(account)


def described(ledger: Ledger) -> str:
    """Return the counts and the kills as Markdown."""
    blows = sorted({kill.blow for kill in ledger.kills})
    kills = {blow: [kill for kill in ledger.kills if kill.blow == blow] for blow in blows}
    columns = {"Times": len, "Ready again after, s": _ready(median), "Longest": _ready(max)}
    orders_ = table(("Orders", "Number"), list(_orders(ledger).items()))
    return f"{orders_}\n\n{report.grouped('Killed', columns, kills | {'all': ledger.kills})}"


def _ready(of: Callable[[list[float]], float]) -> Callable[[Sequence[Kill]], str]:
    def told(kills: Sequence[Kill]) -> str:
        taken = [kill.ready_after for kill in kills if kill.ready_after is not None]
        return f"{of(taken):.1f}" if taken else ""

    return told


def _orders(ledger: Ledger) -> dict[str, object]:
    counts, reasons = ledger.counts(), ledger.reasons()
    failed = [f"{count} {name}" for name, count in sorted(reasons.items()) if name != "cancelled"]
    twice = Counter(notice.delivery for notice in ledger.notices)
    accounts = list(ledger.accounts.values())
    return {
        "accepted": len(ledger.taken),
        "= finished": counts["succeeded"],
        f"+ failed with a reason ({', '.join(failed) or 'none'})": counts["failed"],
        "+ cancelled as asked": counts["cancelled"],
        "+ lost": counts["never final"] + sum(bool(a.faults) for a in ledger.taken),
        "not handed in, as the time was over": ledger.unsent,
        "with an image": sum("image" in a.order.body for a in accounts),
        "with an image and a mask": sum("mask" in a.order.body for a in accounts),
        "of two passes": sum("hires" in a.order.body for a in accounts),
        "by `POST /generate`, waiting for the answer": sum(a.order.synchronous for a in accounts),
        "given up as poison": reasons[POISON],
        "started more than once": sum(a.attempts > 1 for a in accounts),
        "most starts of one job": max((a.attempts for a in accounts), default=0),
        "requests refused with a time to come back": sum(a.refusals for a in accounts),
        "requests sent again for want of an answer": sum(a.retries for a in accounts),
        "jobs told of by webhook": len({n.job for n in ledger.notices if not n.refused}),
        "deliveries that came again, with their id": sum(n - 1 for n in twice.values()),
        "images compared with undisturbed ones": len(ledger.calm),
        "seconds in all": round(ledger.seconds),
    }


def heading(_: Given, ledger: Ledger) -> str:
    """Return the begin of the figures of docs/chaos.md."""
    accounts = ledger.accounts.values()
    told = sum("webhook" in account.order.body for account in accounts)
    hurried = sum("timeout_seconds" in account.order.body for account in accounts)
    doubtful = sum(account.cancel_asked for account in accounts)
    return f""":
{len(accounts)} orders of 256x256 to 256x384 with 2 to 8 steps; {told} have a webhook, {hurried}
a deadline of 0.3 to 4 s, {doubtful} are cancelled by their clients. Meanwhile {len(ledger.kills)}
kills, a quarter of them before the service had recovered from the last one."""


def options(root: argparse.ArgumentParser) -> None:
    root.add_argument(
        "--module",
        default="service",
        help="what Python runs as the service; one that loses jobs must fail the checks",
    )


def refuse(given: Given) -> None:
    """Raise ConfigError where an earlier drill's jobs would be taken for this one's."""
    if given.folder is not None and (given.folder / "data").exists():
        raise ConfigError(f"--folder {given.folder}: an earlier drill's jobs are there")


DRILL: Final = Drill(
    command="tests.drills.chaos",
    about=__doc__,
    page="chaos",
    numbers=(
        Number(name="seed", default=1, about="of orders and kills"),
        Number(name="jobs", default=200, about="orders, at least"),
        Number(name="engines", default=1, least=1, most=64, about="engines of the service"),
        Number(name="engine-kills", default=20, about="engines that are killed"),
        Number(name="service-kills", default=10, about="services that are killed"),
        Number(name="minutes", default=20.0, about="no kill and no new order after them"),
    ),
    run=run,
    checks=CHECKS,
    heading=heading,
    described=described,
    options=options,
    refuse=refuse,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
