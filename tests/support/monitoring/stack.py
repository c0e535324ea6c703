"""A real Prometheus, a real Alertmanager and a webhook, wired as in production; what they say."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from tests.support.load_client import background
from tests.support.monitoring import configs
from tests.support.programs import Program, started
from tests.support.receiver import receiving
from tests.support.wait import TooLateError, free_port, until

START_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.5
PROGRAMS: Final = ("prometheus", "prometheus-alertmanager")
WATCHDOG: Final = "SDWatchdog"


class QueryError(Exception):
    """Prometheus refused a query; its words."""


def missing_programs() -> list[str]:
    """Return the programs that are not installed, as Debian names them."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """An alert that shall fire, be delivered and end; by name and, where it counts, labels."""

    alert: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        wanted = {"alertname": self.alert, **self.labels}
        return wanted.items() <= dict(labels).items()

    def __str__(self) -> str:
        return self.alert + "".join(f" {value}" for value in self.labels.values())


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One alert as it was seen, or delivered, at one time."""

    at: float
    state: str
    """``pending``, ``firing``, ``resolved`` or, for one that Alertmanager holds, ``inhibited``."""
    labels: Mapping[str, str]
    receiver: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, str]]]:
        return self.state, frozenset(self.labels.items())


class Sights(list[Sight]):
    """Everything that was seen at one place, in order."""

    def first(self, state: str, expected: Expected, since: float) -> Sight | None:
        """Return when an alert was first seen in a state after a point in time."""
        found = (s for s in self if s.at >= since and s.state == state)
        return next((each for each in found if expected.matches(each.labels)), None)

    def names(self, state: str, since: float = 0.0) -> set[str]:
        """Return the alerts that came into a state since a point in time."""
        return {s.labels["alertname"] for s in self if s.at >= since and s.state == state}


@dataclass(kw_only=True)
class Stack:
    """Addresses of the running parts, what can be asked of them, and what was seen there."""

    prometheus: str
    alertmanager: str
    webhook: str
    tells_end: frozenset[str]
    """Receivers that are told of the end of an alert."""
    session: aiohttp.ClientSession
    delivered: Sights
    seen: Sights = field(default_factory=Sights)
    """The first sight of each alert in each state since it last was quiet."""
    now: list[Sight] = field(default_factory=list)

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of one of Prometheus' answers; raise QueryError if it refuses."""
        # POST: queries of dashboards are longer than some proxies let an address be.
        async with self.session.post(f"{self.prometheus}/api/v1/{path}", data=parameters) as answer:
            body = await answer.json()
        if body["status"] != "success":
            raise QueryError(body.get("error", "no reason given"))
        return body["data"]

    async def value(self, expression: str) -> float | None:
        """Return the only sample of an expression, or None."""
        found = (await self.ask("query", query=expression))["result"]
        return float(found[0]["value"][1]) if found else None

    @property
    def loud(self) -> set[str]:
        """Alerts that fire or are about to, but for the dead man's switch."""
        return {each.labels["alertname"] for each in self.now} - {WATCHDOG}

    async def watch(self) -> None:
        """Look again and again which alerts Prometheus and Alertmanager hold."""
        while True:
            # Busy cores: the next look comes soon.
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        async with self.session.get(f"{self.prometheus}/api/v1/alerts") as answer:
            found = (await answer.json())["data"]["alerts"]
        states = [(alert["state"], alert["labels"]) for alert in found]
        async with self.session.get(f"{self.alertmanager}/api/v2/alerts") as answer:
            held = [a for a in await answer.json() if a["status"]["inhibitedBy"]]
        states += [("inhibited", alert["labels"]) for alert in held]
        at = time.time()
        sights = [Sight(at=at, state=state, labels=labels) for state, labels in states]
        before = {each.key for each in self.now}
        self.seen += [each for each in sights if each.key not in before]
        self.now = sights


@asynccontextmanager
async def running_stack(
    folder: Path, *, rules: str, service: str, seconds: int
) -> AsyncIterator[Stack]:
    """Start all of it in ``folder``, scraping the address ``service``, and end it by its ids."""
    own, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    delivered = Sights()

    async def accept(request: web.Request) -> web.Response:
        body, now = await request.json(), time.time()
        for alert in body["alerts"]:
            known = {name: alert[name] for name in ("labels", "annotations")}
            sight = Sight(at=now, state=alert["status"], receiver=body["receiver"], **known)
            delivered.append(sight)
        return web.Response()

    async with AsyncExitStack() as parts:
        webhook = await parts.enter_async_context(receiving(accept))
        session = await parts.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        )
        (folder / "alerts").mkdir(parents=True)
        config = configs.write_prometheus(
            folder,
            rules=rules,
            service=service,
            own=own,
            alertmanager=alertmanager,
            seconds=seconds,
        )
        # Grouped for a moment only, and repeated only for the dead man's switch.
        tells_end = configs.write_alertmanager(folder, webhook=webhook, wait="1s", repeat="10m")
        for address, command in (
            (alertmanager, _alertmanager(folder, alertmanager)),
            (own, _prometheus(folder, config, own)),
        ):
            file = folder / f"{command[0]}.log"
            program = await parts.enter_async_context(started(command, file))
            await _ready(session, program, command[0], address)
        stack = Stack(
            prometheus=f"http://{own}",
            alertmanager=f"http://{alertmanager}",
            webhook=webhook,
            tells_end=tells_end,
            session=session,
            delivered=delivered,
        )
        await parts.enter_async_context(background(stack.watch()))
        yield stack


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


async def _ready(session: aiohttp.ClientSession, program: Program, name: str, address: str) -> None:
    async def answers() -> bool:
        if not program.running:
            raise TooLateError(f"{name} ended:\n{program.tail()}")
        async with session.get(f"http://{address}/-/ready") as answer:
            return answer.status == HTTPStatus.OK

    await until(answers, START_SECONDS, f"{name} ready")
