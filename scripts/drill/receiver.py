"""The webhook at which Alertmanager's notifications arrive."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from scripts.drill.scene import Expected
from scripts.drill.wait import free_port


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One alert of one notification."""

    at: float
    receiver: str
    status: str
    """``firing`` or ``resolved``."""
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def alert(self) -> str:
        """Name of the alert."""
        return self.labels["alertname"]


@dataclass
class Receiver:
    """What has arrived so far, in order."""

    url: str
    deliveries: list[Delivery] = field(default_factory=list)

    def first(self, expected: Expected, status: str, since: float) -> Delivery | None:
        """Return the first delivery of an alert in a state since a point in time."""
        return next(
            (
                each
                for each in self.deliveries
                if each.at >= since and each.status == status and expected.matches(each.labels)
            ),
            None,
        )

    def names(self, status: str, since: float) -> set[str]:
        """Return the alerts that arrived in a state since a point in time."""
        return {d.alert for d in self.deliveries if d.at >= since and d.status == status}

    async def accept(self, request: web.Request) -> web.Response:
        """Take one notification."""
        body: dict[str, Any] = await request.json()
        now = time.time()
        for alert in body["alerts"]:
            self.deliveries.append(
                Delivery(
                    at=now,
                    receiver=str(body["receiver"]),
                    status=str(alert["status"]),
                    labels=alert["labels"],
                    annotations=alert["annotations"],
                )
            )
        return web.Response()


@asynccontextmanager
async def listening() -> AsyncIterator[Receiver]:
    """Listen on the loopback address until the end."""
    port = free_port()
    receiver = Receiver(f"http://127.0.0.1:{port}/")
    app = web.Application(client_max_size=2**22)
    app.router.add_post("/{receiver}", receiver.accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield receiver
    finally:
        await runner.cleanup()
