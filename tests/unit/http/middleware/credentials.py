"""Keys, and what a request with them gets."""

from typing import Any

from service.config.credentials import Keys
from service.http.state import METRICS
from tests.support.samples import sample

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
WRONG = "0123456789abcdef0123456789abcdef"
KEYS = Keys(f"alice:{ALICE},bob:{BOB}")
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
BASIC = {"Authorization": "Basic cHJveHk6c2VjcmV0"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def status(client, path: str = "/generate", headers: Any = None, method: str = "POST") -> int:
    body = BODY if method == "POST" else None
    async with client.request(method, path, json=body, headers=headers) as answer:
        await answer.read()
        return int(answer.status)


def value(client, name: str, **labels: str) -> Any:
    return sample(client.app[METRICS], name, **labels)
