"""A real Prometheus, a real Alertmanager and a webhook, wired as in production."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

from scripts.drill import configs
from scripts.drill.child import Child, started
from scripts.drill.receiver import Receiver, listening
from scripts.drill.wait import TooLateError, free_port, until

START_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 20.0
PROGRAMS: Final = ("prometheus", "prometheus-alertmanager")


class QueryError(Exception):
    """Prometheus refused a query; its words."""


def missing_programs() -> list[str]:
    """Return the programs that are not installed, as Debian names them."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Addresses of the running parts, and what can be asked of them."""

    prometheus: str
    alertmanager: str
    receiver: Receiver
    tells_end: frozenset[str]
    """Receivers that are told of the end of an alert."""
    session: aiohttp.ClientSession

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of one of Prometheus' answers.

        Raises:
            QueryError: it did not like the question.

        """
        # POST: queries of dashboards are longer than some proxies let an address be.
        async with self.session.post(f"{self.prometheus}/api/v1/{path}", data=parameters) as answer:
            body = await answer.json()
        if body["status"] != "success":
            raise QueryError(body.get("error", "no reason given"))
        return body["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now."""
        data = await self.ask("query", query=expression)
        return list(data["result"])

    async def value(self, expression: str) -> float | None:
        """Return the only sample of an expression, or None."""
        found = await self.query(expression)
        return float(found[0]["value"][1]) if found else None

    async def alerts(self) -> list[tuple[str, dict[str, str]]]:
        """Return Prometheus' alerts that are not quiet: ``pending`` or ``firing``, and labels."""
        async with self.session.get(f"{self.prometheus}/api/v1/alerts") as answer:
            found = (await answer.json())["data"]["alerts"]
        return [(alert["state"], alert["labels"]) for alert in found]

    async def inhibited(self) -> list[dict[str, str]]:
        """Return the labels of the alerts that Alertmanager holds back for another one."""
        async with self.session.get(f"{self.alertmanager}/api/v2/alerts") as answer:
            found = await answer.json()
        return [alert["labels"] for alert in found if alert["status"]["inhibitedBy"]]


@asynccontextmanager
async def running_stack(
    folder: Path, *, rules: str, service: str, seconds: int
) -> AsyncIterator[Stack]:
    """Start all of it in ``folder``, scraping the address ``service``, and end it by its ids."""
    own, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    # Notifications are grouped for a moment only, and repeated only for the dead man's switch.
    intervals = {"wait": "1s", "repeat": "10m"}
    async with AsyncExitStack() as parts:
        receiver = await parts.enter_async_context(listening())
        session = await parts.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        )
        (folder / "alerts").mkdir(parents=True)
        prometheus_file = configs.write_prometheus(
            folder,
            rules=rules,
            service=service,
            own=own,
            alertmanager=alertmanager,
            seconds=seconds,
        )
        tells_end = configs.write_alertmanager(folder, webhook=receiver.url, **intervals)
        children = [
            await parts.enter_async_context(started(command, folder / f"{command[0]}.log"))
            for command in (
                _alertmanager(folder, alertmanager),
                _prometheus(folder, prometheus_file, own),
            )
        ]
        for child, address in zip(children, (alertmanager, own), strict=True):
            await _ready(session, child, address)
        yield Stack(
            prometheus=f"http://{own}",
            alertmanager=f"http://{alertmanager}",
            receiver=receiver,
            tells_end=tells_end,
            session=session,
        )


def _prometheus(folder: Path, config: Path, address: str) -> list[str]:
    return [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        f"--web.external-url=http://{address}",
        f"--web.user-assets={configs.ROOT / 'alerts'}",
        "--enable-feature=exemplar-storage",
        "--rules.alert.resend-delay=1s",  # Else an alert that went is heard of a minute later.
        "--log.level=warn",
    ]


def _alertmanager(folder: Path, address: str) -> list[str]:
    return [
        "prometheus-alertmanager",
        f"--config.file={folder / 'alerts' / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


async def _ready(session: aiohttp.ClientSession, child: Child, address: str) -> None:
    async def answers() -> bool:
        if not child.running:
            raise TooLateError(f"{child.output.stem} ended:\n{child.tail()}")
        try:
            async with session.get(f"http://{address}/-/ready") as answer:
                return answer.status == HTTPStatus.OK
        except aiohttp.ClientError:
            return False

    await until(answers, START_SECONDS, f"{child.output.stem} ready")
