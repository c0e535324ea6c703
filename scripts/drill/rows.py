"""One fault from its begin to its end, and the line of the table that it makes."""

import asyncio
import time
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import psutil

from scripts.drill.scene import Fault, Scene, SkippedError
from scripts.drill.stack import QueryError, Stack
from scripts.drill.wait import TooLateError, until
from scripts.drill.watch import WATCHDOG, Watch

COMMIT_SECONDS: Final = 600.0
"""To make a fault; some wait for an engine to load, or for normal steps to compare with."""

ALERT_SECONDS: Final = 300.0
QUIET_SECONDS: Final = 600.0
LATE_ERRORS: Final = "sum(instance:sd_errors:increase3d)"


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
    also: list[str] = field(default_factory=list)
    """Other alerts that were delivered."""
    resolved: float | None = None
    problem: str = ""
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether all of it happened."""
        return not self.problem

    def json(self) -> dict[str, Any]:
        """Return it for the report."""
        return asdict(self) | {"passed": self.passed}


class Drill:
    """Commits faults and watches what the stack makes of them."""

    def __init__(self, scene: Scene, stack: Stack, watch: Watch) -> None:
        self._scene = scene
        self._stack = stack
        self._watch = watch

    async def row(self, fault: Fault) -> Row:
        """Commit one fault, wait for its alert, undo it and wait for the silence."""
        row = Row(name=fault.name, fault=fault.title, expected=str(fault.expected))
        clock = self._scene.clock
        clock.restart()
        try:
            await self._commit(fault, row)
            undone = time.time()
            await self._quiet(fault, row, undone)
        except SkippedError as reason:
            row.skipped = str(reason)
        except (TooLateError, QueryError, aiohttp.ClientError, psutil.Error) as error:
            row.problem = str(error) or type(error).__name__
            await self.recover()
        delivered = self._stack.receiver.names("firing", clock.begun)
        row.also = sorted(delivered - {fault.expected.alert, WATCHDOG})
        return row

    async def recover(self) -> None:
        """After a failed row: the next one shall not suffer from it."""
        self._scene.service.fail()
        try:
            if not self._scene.service.child.running:
                await self._scene.service.start(ready=False)
            await until(self._is_quiet, QUIET_SECONDS, "quiet again")
        except TooLateError:
            await self._scene.service.start()

    async def _commit(self, fault: Fault, row: Row) -> None:
        commit = fault.commit(self._scene)
        try:
            await asyncio.wait_for(commit.__aenter__(), COMMIT_SECONDS)
        except TimeoutError:
            raise TooLateError("the fault itself did not come about") from None
        try:
            await self._alerted(fault, row, self._scene.clock.begun)
        finally:
            await commit.__aexit__(None, None, None)

    async def _alerted(self, fault: Fault, row: Row, begun: float) -> None:
        expected, receiver = fault.expected, self._stack.receiver

        async def fired() -> bool:
            return self._watch.first("firing", expected, begun) is not None

        async def delivered() -> bool:
            return receiver.first(expected, "firing", begun) is not None

        async def held() -> bool:
            return fault.silences <= self._watch.names("inhibited", begun)

        await until(fired, ALERT_SECONDS, f"{expected} firing")
        sight = self._watch.first("firing", expected, begun)
        assert sight is not None  # noqa: S101 - it was waited for
        row.fired = round(sight.at - begun, 1)
        await until(delivered, ALERT_SECONDS, f"{expected} delivered")
        delivery = receiver.first(expected, "firing", begun)
        assert delivery is not None  # noqa: S101 - it was waited for
        row.delivered, row.receiver = round(delivery.at - begun, 1), delivery.receiver
        row.problem = await self._unreadable(delivery.annotations["runbook_url"])
        try:
            await until(held, ALERT_SECONDS / 5, f"{', '.join(sorted(fault.silences))} inhibited")
        finally:
            row.inhibited = sorted(self._watch.names("inhibited", begun))

    async def _unreadable(self, url: str) -> str:
        """Follow the link to the runbook, as whom it wakes would; return what is wrong with it."""
        async with self._stack.session.get(url) as answer:
            good = answer.status == HTTPStatus.OK
            return "" if good else f"the runbook at {url} answers {answer.status}"

    async def _quiet(self, fault: Fault, row: Row, undone: float) -> None:
        """Wait for the end of the alert, here and at its receiver, and of all others."""
        expected = fault.expected

        async def ended() -> bool:
            if any(s.state == "firing" and expected.matches(s.labels) for s in self._watch.now):
                return False
            return (
                row.receiver not in self._stack.tells_end
                or self._stack.receiver.first(expected, "resolved", undone) is not None
            )

        await until(ended, QUIET_SECONDS, f"{expected} resolved")
        row.resolved = round(time.time() - undone, 1)
        await until(self._is_quiet, QUIET_SECONDS, "all quiet again")

    async def _is_quiet(self) -> bool:
        """Whether nothing of the last fault is left, in the longest of windows either."""
        if self._watch.loud or not await self._scene.service.is_ready():
            return False
        return not await self._stack.value(LATE_ERRORS)
