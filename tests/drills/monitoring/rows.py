"""One fault from its begin to its end, and the line of the table that it makes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp
import psutil

from scripts import written
from tests.drills.monitoring.fault import Fault
from tests.drills.monitoring.scene import Scene, SkippedError
from tests.support.monitoring.stack import WATCHDOG, QueryError, Sight, Sights
from tests.support.wait import TooLateError, until

COMMIT_SECONDS: Final = 600.0
"""To make a fault; some wait for an engine to load, or for normal steps to compare with."""

ALERT_SECONDS: Final = 300.0
QUIET_SECONDS: Final = 600.0
LATE_ERRORS: Final = "sum(instance:sd_errors:increase3d)"
HEAD: Final = ("Fault", "Alert", "Fired", "Delivered", "To", "Inhibited", "Resolved", "")


@dataclass(kw_only=True)
class Row:
    """What became of one fault; times in seconds since it began or, for the end, was undone."""

    name: str
    fault: str
    expected: str
    fired: float | None = None
    delivered: float | None = None
    receiver: str = ""
    inhibited: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)  # Other alerts that were delivered.
    resolved: float | None = None
    problem: str = ""
    skipped: str = ""

    def __str__(self) -> str:
        return " · ".join(cell for cell in self.cells if cell)

    @property
    def cells(self) -> tuple[str, ...]:
        fired, delivered, resolved = (
            "" if seconds is None else f"{seconds:.0f} s"
            for seconds in (self.fired, self.delivered, self.resolved)
        )
        verdict = f"skipped: {self.skipped}" if self.skipped else "ok"
        if self.problem:
            verdict = f"FAILED: {self.problem.splitlines()[0]}"
        inhibited = ", ".join(self.inhibited)
        first = (self.fault, self.expected, fired, delivered)
        return *first, self.receiver, inhibited, resolved, verdict


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table; times are seconds after the fault, or its end."""
    return written.table(HEAD, [row.cells for row in rows])


async def committed(scene: Scene, fault: Fault) -> Row:
    """Commit one fault, wait for its alert, undo it and wait for the silence."""
    row = Row(name=fault.name, fault=fault.title, expected=str(fault.expected))
    scene.restart_clock()
    try:
        await _commit(scene, fault, row)
        await _silence(scene, fault, row, time.time())
    except SkippedError as reason:
        row.skipped = str(reason)
    except (TooLateError, QueryError, aiohttp.ClientError, psutil.Error) as error:
        row.problem = str(error) or type(error).__name__
        await _recover(scene)
    delivered = scene.stack.delivered.names("firing", scene.clock)
    row.also = sorted(delivered - {fault.expected.alert, WATCHDOG})
    return row


async def _recover(scene: Scene) -> None:
    """After a failed row: the next one shall not suffer from it."""
    scene.fail()
    try:
        if not scene.service.running:
            await scene.start()
        await until(lambda: _is_quiet(scene), QUIET_SECONDS, "quiet again")
    except TooLateError:
        await scene.service.start()


async def _commit(scene: Scene, fault: Fault, row: Row) -> None:
    commit = fault.commit(scene)
    try:
        await asyncio.wait_for(commit.__aenter__(), COMMIT_SECONDS)
    except TimeoutError:
        raise TooLateError("the fault itself did not come about") from None
    try:
        await _alerted(scene, fault, row)
    finally:
        await commit.__aexit__(None, None, None)


async def _alerted(scene: Scene, fault: Fault, row: Row) -> None:
    expected, stack, begun = fault.expected, scene.stack, scene.clock

    async def held() -> bool:
        return fault.silences <= stack.seen.names("inhibited", begun)

    async def first(sights: Sights, word: str) -> Sight:
        async def there() -> Sight | None:
            return sights.first("firing", expected, begun)

        return await until(there, ALERT_SECONDS, f"{expected} {word}")

    row.fired = round((await first(stack.seen, "firing")).at - begun, 1)
    sight = await first(stack.delivered, "delivered")
    row.delivered = round(sight.at - begun, 1)
    row.receiver = sight.receiver
    # Follow the link to the runbook, as whom it wakes would.
    url = sight.annotations["runbook_url"]
    async with stack.session.get(url) as answer:
        if answer.status != HTTPStatus.OK:
            row.problem = f"the runbook at {url} answers {answer.status}"
    try:
        await until(held, ALERT_SECONDS / 5, f"{', '.join(sorted(fault.silences))} inhibited")
    finally:
        row.inhibited = sorted(stack.seen.names("inhibited", begun))


async def _silence(scene: Scene, fault: Fault, row: Row, undone: float) -> None:
    """Wait for the end of the alert, here and at its receiver, and of all others."""
    expected, stack = fault.expected, scene.stack

    async def ended() -> bool:
        if any(s.state == "firing" and expected.matches(s.labels) for s in stack.now):
            return False
        told = stack.delivered.first("resolved", expected, undone) is not None
        return row.receiver not in stack.tells_end or told

    await until(ended, QUIET_SECONDS, f"{expected} resolved")
    row.resolved = round(time.time() - undone, 1)
    await until(lambda: _is_quiet(scene), QUIET_SECONDS, "all quiet again")


async def _is_quiet(scene: Scene) -> bool:
    """Whether nothing of the last fault is left, in the longest of windows either."""
    if scene.stack.loud or not await scene.service.is_ready():
        return False
    return not await scene.stack.value(LATE_ERRORS)
