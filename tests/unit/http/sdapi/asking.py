"""Requests to the AUTOMATIC1111 API, and keys for them."""

import base64
import json
from typing import Any

from service.config.credentials import Keys

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
KEYS = Keys(f"alice:{ALICE},bob:{BOB}")
BODY = {"prompt": "a cat", "width": 256, "height": 256, "steps": 2, "seed": 7}
V1 = "/sdapi/v1"


def basic(password: str, user: str = "user") -> dict[str, str]:
    """Return the header of Basic authentication."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


async def ask(client, method: str, path: str, status: int = 200, **more: Any) -> Any:
    """Ask below ``/sdapi/v1``, check the status, and return what the answer holds."""
    async with client.request(method, f"{V1}/{path}", **more) as answer:
        assert answer.status == status, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def draw(client, status: int = 200, headers: Any = None, **fields: Any) -> Any:
    """Ask for images of a small cat."""
    return await ask(client, "POST", "txt2img", status, json=BODY | fields, headers=headers)


def info(answer: dict[str, Any]) -> Any:
    """Return what ``info`` holds, which is JSON inside JSON."""
    assert isinstance(answer["info"], str)
    return json.loads(answer["info"])
