"""A client that gets what it ordered, whatever happens to the service meanwhile."""

import asyncio
import hashlib
import io
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from PIL import Image

from scripts.chaos_drill.ledger import Account, End, Ledger
from scripts.chaos_drill.orders import Order

ANSWER_SECONDS: Final = 15.0
PICTURE_SECONDS: Final = 90.0
"""For a picture in the answer: it waits in the queue, and maybe for an engine."""

POLL_SECONDS: Final = 0.3
LONGEST_WAIT: Final = 10.0
"""A client of a drill does not honour a longer Retry-After than this."""

REFUSED: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
NOT_FOR_LONG: Final = frozenset({"shutting_down"})
"""Refusals that name no time, for another instance would take the request at once."""

FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The content as JSON; empty where it is none."""
        with suppress(ValueError):
            found = json.loads(self.content)
            if isinstance(found, dict):
                return found
        return {}

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the service asks to be asked again; None for a real answer."""
        if self.status not in REFUSED:
            return None
        if "Retry-After" in self.headers:
            return min(float(self.headers["Retry-After"]), LONGEST_WAIT)
        return POLL_SECONDS if self.body.get("code") in NOT_FOR_LONG else None


class Client:
    """Sends orders and writes down what it is told; one object serves any number of them."""

    def __init__(self, url: str, session: aiohttp.ClientSession, ledger: Ledger, seed: int) -> None:
        self._url = url
        self._session = session
        self._ledger = ledger
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._repeatable = False
        """Whether ``POST /generate`` promises the same picture for the same key."""

    async def read_description(self) -> None:
        """Learn from the service's own description what it can be held to."""
        async with self._session.get(f"{self._url}/openapi.json") as answer:
            described = await answer.json()
        self._repeatable = "Idempotency-Key" in json.dumps(described["paths"]["/generate"])

    async def get_served(self, order: Order) -> None:
        """Order a picture and stay with it until its end."""
        account = self._ledger.open(order)
        account.asked = time.time()
        if order.synchronous:
            await self._generate(account)
            return
        if not await self._hand_in(account):
            return
        doubt = None
        if order.cancel_after is not None:
            doubt = asyncio.create_task(self._change_mind(account, order.cancel_after))
        try:
            state = await self._follow(account)
            if state == "succeeded":
                await self.fetch(account)
        finally:
            if doubt is not None:
                await doubt

    async def look_again(self, account: Account) -> None:
        """Ask once more for what is over: nothing of it may have changed, nor be made anew."""
        if account.order.synchronous:
            await self._repeat(account)
            return
        if not account.ids:
            return
        answer = await self._hand_over(account)
        if answer.headers.get("Idempotent-Replayed") != "true":
            account.faults.append(f"its key was forgotten: {answer.status}")
        await self._look(account)
        if account.ends and account.ends[0].state == "succeeded":
            await self.fetch(account)

    async def fetch(self, account: Account) -> None:
        """Fetch the picture and look whether it is the one that was ordered."""
        answer = await self._ask(account, "GET", f"/jobs/{account.ids[0]}/image")
        if answer.status != HTTPStatus.OK:
            account.faults.append(f"its picture is {answer.status} {answer.body.get('code')}")
        else:
            self._take(account, answer.content)

    async def plain(self, account: Account) -> bytes:
        """Make the picture of an order once more, for itself, and return it."""
        answer = await self._ask(
            account,
            "POST",
            "/generate",
            json=account.order.picture,
            headers={"Accept": "image/png"},
        )
        return answer.content if answer.status == HTTPStatus.OK else b""

    async def all_jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that the service knows."""
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
            async with self._session.get(f"{self._url}/jobs", params=query) as answer:
                page = await answer.json()
            found += page["jobs"]
            cursor = page["cursor"]
        return found

    async def _hand_in(self, account: Account) -> bool:
        """Order, as often as need be; return whether it was accepted."""
        while True:
            answer = await self._hand_over(account)
            if answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
                account.accepted = time.time()
                return True
            if (seconds := answer.retry_after) is None:
                account.faults.append(f"refused for good: {answer.status} {answer.body}")
                account.accepted = time.time()  # So that it is missed in the count.
                return False
            account.refusals += 1
            await asyncio.sleep(seconds)

    async def _hand_over(self, account: Account) -> Answer:
        order = account.order
        headers = {"Idempotency-Key": order.key}
        answer = await self._ask(account, "POST", "/jobs", json=order.body, headers=headers)
        if answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            account.named(str(answer.body["id"]))
        return answer

    async def _follow(self, account: Account) -> str:
        """Ask for the job until it is over; return how it ended."""
        while True:
            if state := await self._look(account):
                return state
            if account.faults:
                return "lost"
            await asyncio.sleep(POLL_SECONDS * self._chance.uniform(0.5, 1.5))

    async def _look(self, account: Account) -> str:
        answer = await self._ask(account, "GET", f"/jobs/{account.ids[0]}")
        return self._note(account, answer)

    async def _change_mind(self, account: Account, seconds: float) -> None:
        await asyncio.sleep(seconds)
        account.cancel_asked = True
        answer = await self._ask(account, "DELETE", f"/jobs/{account.ids[0]}")
        self._note(account, answer)

    def _note(self, account: Account, answer: Answer) -> str:
        """Write down what was said of a job; return its end, empty while there is none."""
        body = answer.body
        if answer.retry_after is not None:
            return ""
        if answer.status != HTTPStatus.OK:
            account.faults.append(f"asked for, it is {answer.status} {body.get('code')}")
            return ""
        account.attempts = max(account.attempts, int(body["attempts"]))
        if body["state"] not in FINAL:
            if account.ends:
                account.faults.append(f"it was over, and is {body['state']}")
            return ""
        reason = (body["error"] or {}).get("code", "")
        end = End(state=body["state"], reason=reason, finished_at=body["finished_at"])
        account.told(end, time.time())
        return end.state

    async def _generate(self, account: Account) -> None:
        """Wait for the picture in the answer; without an answer send the same again."""
        while True:
            answer = await self._wait_for_picture(account)
            if (seconds := answer.retry_after) is None:
                break
            account.refusals += 1
            await asyncio.sleep(seconds)
        account.accepted = now = time.time()
        if answer.status == HTTPStatus.OK:
            account.told(End(state="succeeded"), now)
            self._take(account, answer.content)
        else:
            account.told(End(state="failed", reason=str(answer.body.get("code", ""))), now)

    async def _repeat(self, account: Account) -> None:
        """Ask for a picture that has come once more: it may not be made again."""
        if account.ends[0].state != "succeeded":
            return
        answer = await self._wait_for_picture(account)
        if answer.headers.get("Idempotent-Replayed") == "true":
            self._take(account, answer.content)
        elif self._repeatable:
            account.faults.append(f"its key was forgotten: {answer.status}")

    async def _wait_for_picture(self, account: Account) -> Answer:
        return await self._ask(
            account,
            "POST",
            "/generate",
            seconds=PICTURE_SECONDS,
            json=account.order.body,
            headers={"Idempotency-Key": account.order.key, "Accept": "image/png"},
        )

    def _take(self, account: Account, content: bytes) -> None:
        account.pictures.append(hashlib.sha256(content).hexdigest())
        account.png = content
        if fault := flaw(content, account.order.size):
            account.faults.append(fault)

    async def _ask(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        seconds: float = ANSWER_SECONDS,
        **content: Any,
    ) -> Answer:
        """Send a request until it is answered, by whichever service then listens."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        while True:
            try:
                async with self._session.request(
                    method, self._url + path, timeout=timeout, **content
                ) as answer:
                    return Answer(
                        status=answer.status, headers=answer.headers, content=await answer.read()
                    )
            except (aiohttp.ClientError, TimeoutError, OSError):
                account.retries += 1
                await asyncio.sleep(POLL_SECONDS * self._chance.uniform(0.5, 1.5))


def flaw(content: bytes, size: tuple[int, int]) -> str:
    """Return what is wrong with a picture; empty where it is a PNG of that size."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except OSError as error:
        return f"its picture cannot be read: {error}"
    if picture.format != "PNG" or picture.size != size:
        return f"its picture is a {picture.format} of {picture.size}"
    return ""
