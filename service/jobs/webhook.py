"""Telling others that a job is over, until they have heard it or are given up.

``signature`` documents what a receiver gets, ``targets`` where it may be; the POST itself is
``service.http.outbound``, given as ``post``. Wired by: ``deliver`` after a job's row is final,
``told`` writing to ``JobStore.deliver``, and after a start ``deliver`` again for each of
``JobStore.undelivered``, with the attempts that were made before.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
from yarl import URL

from service.jobs import signature
from service.jobs.stored import Delivery, DeliveryState

log = structlog.get_logger(__name__)

LONGEST_BODY: Final = 256 * 1024
"""Bytes; a body holds metadata and addresses, never a picture."""

SLOW_DOWN: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Answers that ask for another attempt though they blame the sender."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a receiver said; its body is not read."""

    status: int
    retry_after: float | None = None
    """Seconds."""


class Unreachable(Exception):
    """An attempt that got no answer, and why; another may."""


class Refused(Exception):
    """An attempt that our own rules forbid, and why; another would be, too."""


Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[Answer]]
"""Sends a body with headers to a URL; raises Unreachable or Refused."""

Told = Callable[[str, Delivery], Awaitable[object]]
"""Keeps how far the webhook of a job got."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often and how long a delivery is tried; times in seconds.

    Waits double from ``first`` to ``longest``, each shortened by up to half at random, so
    that receivers that come back are not met by all at once. A receiver that asks for a
    longer wait (Retry-After) gets it, up to ``longest``.
    """

    attempts: int = 10
    first: float = 5.0
    longest: float = 900.0
    total: float = 3600.0

    def wait(self, attempts: int, asked: float | None, chance: float) -> float:
        """Return the wait after so many attempts; ``chance`` is from 0 to 1."""
        # The exponent is bounded, for a float is, too.
        doubled = min(self.longest, self.first * 2.0 ** min(attempts - 1, 60))
        return min(self.longest, max(doubled * (0.5 + 0.5 * chance), asked or 0.0))


class Webhooks:
    """The deliveries on their way; each is a task that is tried until its end is known.

    A receiver may hear of one job more than once, for what it answered may get lost:
    ``Webhook-Id`` is the same then. Everything runs on the event loop.
    """

    def __init__(
        self,
        post: Post,
        told: Told,
        *,
        secrets: Sequence[str] = (),
        retries: Retries | None = None,
        at_once: int = 16,
        per_host: int = 4,
        most: int = 10_000,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post, self._told = post, told
        self._keys = [signature.key(secret) for secret in secrets]
        self._retries = retries or Retries()
        self._at_once = asyncio.Semaphore(at_once)
        self._per_host = per_host
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._most = most
        self._sleep, self._chance, self._wall, self._steady = sleep, chance, wall, steady
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped = False

    @property
    def pending(self) -> int:
        """Deliveries whose end is not known."""
        return len(self._tasks)

    def deliver(self, job_id: str, url: str, body: Mapping[str, Any], *, attempts: int = 0) -> None:
        """Send ``body`` as JSON, in the background; ``attempts`` were made before a restart.

        A job whose delivery is on its way is not delivered a second time, and after ``stop``
        nothing is sent: it stays pending.
        """
        if self._stopped or job_id in self._tasks:
            return
        room = len(self._tasks) < self._most
        task = asyncio.create_task(self._deliver(job_id, url, body, attempts, room=room))
        self._tasks[job_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job_id, None))

    async def stop(self) -> None:
        """End all attempts; what is not delivered stays pending, for the next start."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(
        self, job_id: str, url: str, body: Mapping[str, Any], attempts: int, *, room: bool
    ) -> None:
        host = URL(url).raw_host or ""
        content = json.dumps(body).encode()
        if not room:
            await self._say(job_id, _failed(attempts, f"{self._most} other deliveries wait"), host)
        elif len(content) > LONGEST_BODY:
            await self._say(job_id, _failed(attempts, "the body is too long"), host)
        else:
            await self._try(job_id, url, content, attempts, host)

    async def _try(self, job_id: str, url: str, content: bytes, attempts: int, host: str) -> None:
        until = self._steady() + self._retries.total
        # Held in a name: the table forgets a host when no delivery to it is left.
        gate = self._hosts.setdefault(host, asyncio.Semaphore(self._per_host))
        while True:
            # The host's gate first: a slow receiver holds up its own deliveries only.
            async with gate, self._at_once:
                attempts += 1
                delivery, asked = await self._attempt(job_id, url, content, attempts)
            wait = self._retries.wait(attempts, asked, self._chance())
            if delivery.state is DeliveryState.PENDING and (
                attempts >= self._retries.attempts or self._steady() + wait > until
            ):
                delivery = _failed(attempts, delivery.detail, delivery.status)
            await self._say(job_id, delivery, host)
            if delivery.state is not DeliveryState.PENDING:
                return
            await self._sleep(wait)

    async def _attempt(
        self, job_id: str, url: str, content: bytes, attempts: int
    ) -> tuple[Delivery, float | None]:
        """Return what came of one attempt, and the wait that the receiver asked for."""
        headers = {
            "Content-Type": "application/json",
            **signature.signed(self._keys, f"{job_id}-ended", int(self._wall()), content),
        }
        try:
            answer = await self._post(url, content, headers)
        except Refused as error:
            return _failed(attempts, str(error)), None
        except Unreachable as error:
            return Delivery(attempts=attempts, detail=str(error)), None
        except Exception:
            log.exception("webhook_attempt_failed", job_id=job_id)
            return Delivery(attempts=attempts, detail="could not be sent"), None
        return _judged(answer, attempts), answer.retry_after

    async def _say(self, job_id: str, delivery: Delivery, host: str) -> None:
        log.info(
            "webhook_attempted",
            job_id=job_id,
            host=host,  # Not the whole address, which may hold a token.
            state=delivery.state.value,
            attempts=delivery.attempts,
            status=delivery.status,
            detail=delivery.detail,
        )
        try:
            await self._told(job_id, delivery)
        except Exception:
            # At worst it is sent once more after a restart; the receiver knows its id.
            log.exception("webhook_state_lost", job_id=job_id)


def _judged(answer: Answer, attempts: int) -> Delivery:
    status = answer.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivery(state=DeliveryState.DELIVERED, attempts=attempts, status=status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in SLOW_DOWN:
        return Delivery(attempts=attempts, status=status, detail="the receiver was not ready")
    if status < HTTPStatus.BAD_REQUEST:
        return _failed(attempts, "redirects are not followed", status)
    return _failed(attempts, "the receiver refused it", status)


def _failed(attempts: int, detail: str, status: int | None = None) -> Delivery:
    return Delivery(state=DeliveryState.FAILED, attempts=attempts, status=status, detail=detail)
