"""What takes webhooks, of the service and of Alertmanager."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from service.webhooks.signature import signature

Accept = Callable[[web.Request], Awaitable[web.Response]]
FRESH_SECONDS: Final = 300.0


@asynccontextmanager
async def receiving(accept: Accept, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Listen until the end; hand out the address, to which one name may be appended."""
    app = web.Application(client_max_size=2**22)
    app.router.add_post("/{name:[^/]*}", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0).start()
        yield f"http://{host}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def verify(secret_key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether a delivery is from somebody who has the key, and fresh."""
    delivery_id, timestamp = headers.get("Webhook-Id", ""), headers.get("Webhook-Timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit():
        return False
    if abs(now - int(timestamp)) > FRESH_SECONDS:
        return False
    wanted = f"v1,{signature(secret_key, delivery_id, timestamp, body)}".encode()
    found = headers.get("Webhook-Signature", "").encode().split(b" ")
    return any(hmac.compare_digest(wanted, one) for one in found)
