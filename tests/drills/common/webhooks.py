"""Receiver of the webhooks of drills."""

import random
import time
from typing import Final

from aiohttp import web

from service.config.webhook_key import webhook_key
from tests.drills.common.ledger import Ledger, Notice
from tests.support.receiver import verify

SECRET: Final = "the receiver of the drills"  # noqa: S105 - of these drills alone
NOT_READY, SILENT = 0.15, 0.1
"""Parts of the webhooks that are answered by 503, and not at all, while there are kills."""


class Receiver:
    """Answers most deliveries with 204, some with 503, and hangs up on some."""

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self._ledger, self._chance = ledger, chance
        self.calm = False
        """Whether it takes all that comes."""

    async def accept(self, request: web.Request) -> web.Response:
        content = await request.read()
        body = await request.json()
        mood = 1.0 if self.calm else self._chance.random()
        notice = Notice(
            delivery=request.headers.get("Webhook-Id", ""),
            job=str(body["id"]),
            state=str(body["state"]),
            genuine=verify(webhook_key(SECRET), request.headers, content, time.time()),
            refused=mood < NOT_READY + SILENT,
        )
        self._ledger.notices.append(notice)
        if mood < SILENT and request.transport is not None:
            request.transport.abort()
        return web.Response(status=503 if notice.refused else 204)
