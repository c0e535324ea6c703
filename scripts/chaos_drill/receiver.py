"""A receiver of webhooks that is not always ready, and remembers what came."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from scripts.chaos_drill.ledger import Ledger, Notice
from scripts.drill.wait import free_port
from service.jobs import signature

SECRET: Final = "the receiver of the chaos drill"  # noqa: S105 - of this drill alone
NOT_READY: Final = 0.15
SILENT: Final = 0.1


class Receiver:
    """Answers most deliveries with 204, some with 503, and hangs up on some."""

    def __init__(self, url: str, ledger: Ledger, chance: random.Random) -> None:
        self.url = url
        self.calm = False
        """Whether it takes all that comes."""
        self._ledger = ledger
        self._chance = chance
        self._key = signature.key(SECRET)

    async def accept(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        content = await request.read()
        body = await request.json()
        mood = 1.0 if self.calm else self._chance.random()
        self._ledger.notices.append(
            Notice(
                delivery=request.headers.get("Webhook-Id", ""),
                job=str(body["id"]),
                state=str(body["state"]),
                genuine=signature.verify(self._key, request.headers, content, time.time()),
                refused=mood < NOT_READY + SILENT,
            )
        )
        if mood < SILENT and request.transport is not None:
            request.transport.abort()
        return web.Response(status=503 if mood < NOT_READY + SILENT else 204)


@asynccontextmanager
async def listening(ledger: Ledger, seed: int) -> AsyncIterator[Receiver]:
    """Listen on the loopback address until the end."""
    port = free_port()
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    receiver = Receiver(f"http://127.0.0.1:{port}/", ledger, chance)
    app = web.Application()
    app.router.add_post("/{order}", receiver.accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield receiver
    finally:
        await runner.cleanup()
