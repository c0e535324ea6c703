"""Clients that get what they ordered, whatever happens to the service meanwhile."""

import asyncio
import hashlib
import io
import itertools
import random
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from PIL import Image

from tests.drills.common.images import (
    MOST_DIFFERING,
    MOST_DIFFERING_FROM_IMAGE,
    difference,
    flaw,
)
from tests.drills.common.ledger import FINAL, Account, End, Ledger, Order
from tests.drills.common.orders import drawn, with_image
from tests.support.load_client import PNG, POLL_SECONDS, Answer, Client, demand

SIZES: Final = ((256, 256), (256, 256), (256, 256), (320, 256), (256, 384))
"""Mostly small: what is tried here is who loses a job, not how fast it is."""

STEPS: Final = range(2, 9)
SYNCHRONOUS, WITH_WEBHOOK, CANCELLED, HURRIED = 0.2, 0.3, 0.12, 0.08
WITH_IMAGE, MASKED, TWO_PASSES = 0.3, 0.5, 0.1
LONGEST_HURRY: Final = 4.0
LONGEST_DOUBT: Final = 3.0
ANSWER_SECONDS: Final = 15.0
IMAGE_SECONDS: Final = 90.0
TAKEN: Final = (HTTPStatus.OK, HTTPStatus.ACCEPTED)
DELETED: Final = (HTTPStatus.OK, HTTPStatus.NO_CONTENT)


def orders(seed: int, webhook: str) -> Iterator[Order]:
    """Yield orders without end; ``webhook`` is where those with one want to be told."""
    chance, of_starts = random.Random(seed), random.Random(f"{seed} starts")
    for number in itertools.count():
        body, key = _started(drawn(chance, SIZES, STEPS), of_starts), f"chaos-{seed}-{number}"
        # All are drawn for every order, so that one more kind leaves the others as they were.
        synchronous, told, cancelled, hurried = (chance.random() for _ in range(4))
        hurry, doubt = chance.uniform(0.3, LONGEST_HURRY), chance.uniform(0, LONGEST_DOUBT)
        if synchronous < SYNCHRONOUS:
            yield Order(number=number, key=key, body=body, synchronous=True)
            continue
        if told < WITH_WEBHOOK:
            body["webhook"] = f"{webhook}{number}"
        if hurried < HURRIED:
            body["timeout_seconds"] = round(hurry, 3)
        cancel_after = doubt if cancelled < CANCELLED else None
        yield Order(number=number, key=key, body=body, cancel_after=cancel_after)


def _started(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Let some requests begin with an image, some with a mask, and some have a second pass."""
    kind = chance.random()
    if kind < WITH_IMAGE:
        return with_image(body, chance, masked=chance.random() < MASKED)
    if kind < WITH_IMAGE + TWO_PASSES:
        larger = {side: body[side] * 5 // 4 for side in ("width", "height")}
        return {**body, "hires": {**larger, "strength": 0.6}}
    return body


class Patient:
    """Sends orders and writes down what it is told; one object serves any number of them."""

    def __init__(self, client: Client, ledger: Ledger, seed: int) -> None:
        self._client = client
        self._ledger = ledger
        self._chance = random.Random(seed)

    async def get_served(self, order: Order) -> None:
        """Order an image and stay with it until its end."""
        account = self._ledger.open(order)
        answer = await self._hand_over(account)
        while (seconds := answer.retry_after) is not None:
            account.refusals += 1
            await asyncio.sleep(seconds)
            answer = await self._hand_over(account)
        account.accepted = time.time()
        if order.synchronous:
            if answer.status == HTTPStatus.OK:
                account.told(End(state="succeeded"))
                self._take(account, answer)
            else:
                account.told(End(state="failed", reason=answer.code))
        elif answer.status not in TAKEN:  # It counts as accepted, and is missed then.
            account.faults.append(f"refused for good: {answer.status} {answer.body}")
        else:
            doubt = asyncio.create_task(self._change_mind(account))
            try:
                if await self._follow(account) == "succeeded":
                    await self._fetch(account)
            finally:
                await doubt

    async def look_again(self, account: Account) -> None:
        """Ask once more for what is over: nothing of it may have changed, nor be made anew."""
        order, made = account.order, bool(account.ends) and account.ends[0].state == "succeeded"
        if (order.synchronous and not made) or not (order.synchronous or account.ids):
            return
        answer = await self._hand_over(account)
        if answer.headers.get("Idempotent-Replayed") != "true":
            account.faults.append(f"its key was forgotten: {answer.status}")
        if order.synchronous:
            self._take(account, answer)
            return
        await self._look(account)
        if made:
            await self._fetch(account)

    async def delete_all(self) -> None:
        """Delete all jobs of the clients."""
        answer = await self._client.ask("DELETE", "/jobs")
        demand(answer.status in DELETED, f"{answer.status} {answer.body} for DELETE /jobs")

    async def compare(self, account: Account) -> str:
        """Make the image of an order once more, for itself; return how the two differ."""
        answer = await self._ask(account, "POST", "/generate", account.order.image, headers=PNG)
        if answer.status != HTTPStatus.OK:
            return "the same request makes no image"
        from_image = "image" in account.order.body
        most = MOST_DIFFERING_FROM_IMAGE if from_image else MOST_DIFFERING
        one, other = (Image.open(io.BytesIO(png)) for png in (account.png, answer.content))
        with one, other:
            return difference(one.convert("RGB"), other.convert("RGB"), most)

    async def _hand_over(self, account: Account) -> Answer:
        """Send the order; it is the same however often it is sent."""
        order, headers = account.order, {"Idempotency-Key": account.order.key}
        if order.synchronous:
            headers |= PNG
        path = "/generate" if order.synchronous else "/jobs"
        answer = await self._ask(account, "POST", path, order.body, headers=headers)
        if answer.status in TAKEN and not order.synchronous:
            account.named(str(answer.body["id"]))
        return answer

    async def _follow(self, account: Account) -> str:
        """Ask for the job until it is over; return how it ended."""
        while not (state := await self._look(account)):
            if account.faults:
                return "lost"
            await self._pause()
        return state

    async def _change_mind(self, account: Account) -> None:
        if account.order.cancel_after is not None:
            await asyncio.sleep(account.order.cancel_after)
            account.cancel_asked = True
            await self._look(account, "DELETE")

    async def _look(self, account: Account, method: str = "GET") -> str:
        """Write down what is said of a job; return its end, empty while there is none."""
        answer = await self._ask(account, method, f"/jobs/{account.ids[0]}")
        body = answer.body
        if answer.retry_after is not None:
            return ""
        if answer.status != HTTPStatus.OK:
            account.faults.append(f"asked for, it is {answer.status} {answer.code}")
            return ""
        account.attempts = max(account.attempts, int(body["attempts"]))
        if body["state"] not in FINAL:
            if account.ends:
                account.faults.append(f"it was over, and is {body['state']}")
            return ""
        reason = (body["error"] or {}).get("code", "")
        account.told(End(state=body["state"], reason=reason, finished_at=body["finished_at"]))
        return str(body["state"])

    async def _fetch(self, account: Account) -> None:
        self._take(account, await self._ask(account, "GET", f"/jobs/{account.ids[0]}/image"))

    def _take(self, account: Account, answer: Answer) -> None:
        if answer.status != HTTPStatus.OK:
            account.faults.append(f"its image is {answer.status} {answer.code}")
            return
        account.images.append(hashlib.sha256(answer.content).hexdigest())
        account.png = answer.content
        if fault := flaw(answer.content, account.order.size):
            account.faults.append(fault)

    async def _ask(
        self, account: Account, method: str, path: str, body: Any = None, **more: Any
    ) -> Answer:
        """Send a request until it is answered, by whichever service then listens."""
        seconds = IMAGE_SECONDS if path == "/generate" else ANSWER_SECONDS
        while True:
            answer = await self._client.ask(method, path, body, seconds=seconds, **more)
            if answer.status:
                return answer
            account.retries += 1
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(POLL_SECONDS * self._chance.uniform(0.5, 1.5))
