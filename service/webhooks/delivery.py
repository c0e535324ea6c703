"""Telling others that a job is over, until they have heard it or are given up.

``signature`` documents what a receiver gets, ``targets`` where it may be; the POST itself is
``service.webhooks.client``, given as ``post``. Wired by: ``deliver`` after a job's row is final,
``told`` writing to ``JobStore.deliver``, and after a start ``deliver`` again for each of
``JobStore.undelivered``, with the attempts that were made before.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
from yarl import URL

from service.core.outcome import Delivery, DeliveryState
from service.system.fair_line import FairLine, Limits, Place
from service.webhooks import signature

log = structlog.get_logger(__name__)

LIMITS: Final = Limits(most=64, each=16, alike=4, spare=100)
"""Connections at a time: in all, of one API key, and to one host of it.

A key that has none under way gets one in any case, whatever the others' receivers do.
"""

MOST: Final = 10_000
"""Deliveries whose end is not known; one API key may have a quarter of them.

A key may have a hundredth of them in any case, however many others have.
"""

LATE: Final = ""
"""Group of the hosts of a key that were late the last time: they share the places of one."""

LATE_SECONDS: Final = 5.0
"""Longer than that is late, whatever the answer; so is none."""

LONGEST_BODY: Final = 256 * 1024
"""Bytes; a body holds metadata and addresses, never an image."""

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


Post = Callable[[str, bytes, Mapping[str, str], str], Awaitable[Answer]]
"""Sends a body with headers to a URL for an owner; raises Unreachable or Refused."""

KeysOf = Callable[[str], Sequence[bytes]]
"""What is signed with for an owner, now; nothing for deliveries without a signature."""

OnAttempt = Callable[[str, Delivery], Awaitable[object]]
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


@dataclass(kw_only=True, eq=False)
class _Host:
    """A receiver of one API key, while anything is on its way to it."""

    owner: str
    name: str
    late: bool = False
    """Whether the last attempt got no answer, or not soon."""

    @property
    def group(self) -> str:
        return LATE if self.late else self.name


class Webhooks:
    """The deliveries on their way; each is a task that is tried until its end is known.

    API keys take turns, and so do the hosts of one: receivers that do not answer delay other
    deliveries of their own key, and of no other. A delivery holds a place while it is attempted,
    never while it waits.

    A receiver may hear of one job more than once, for what it answered may get lost:
    ``Webhook-Id`` is the same then. Everything runs on the event loop.
    """

    def __init__(
        self,
        post: Post,
        told: OnAttempt,
        *,
        keys_of: KeysOf = lambda _owner: (),
        retries: Retries | None = None,
        limits: Limits = LIMITS,
        most: int = MOST,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post, self._told = post, told
        self._keys_of = keys_of
        self._retries = retries or Retries()
        self._line: FairLine[asyncio.Future[Place[Any]]] = FairLine(limits)
        self._hosts: WeakValueDictionary[tuple[str, str], _Host] = WeakValueDictionary()
        self._most = most
        self._of_owner: Counter[str] = Counter()
        self._sleep, self._chance, self._wall, self._steady = sleep, chance, wall, steady
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped = False

    @property
    def pending(self) -> int:
        """Deliveries whose end is not known."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Deliveries whose next attempt waits for its turn."""
        return self._line.waiting

    def deliver(
        self, job_id: str, url: str, body: Mapping[str, Any], *, owner: str, attempts: int = 0
    ) -> None:
        """Send ``body`` as JSON for ``owner``, an API key, in the background.

        ``attempts`` were made before a restart.

        A job whose delivery is on its way is not delivered a second time, and after ``stop``
        nothing is sent: it stays pending.
        """
        if self._stopped or job_id in self._tasks:
            return
        work = self._deliver(job_id, url, body, attempts, owner, room=self._room(owner))
        task = self._tasks[job_id] = asyncio.create_task(work)
        self._of_owner[owner] += 1
        task.add_done_callback(lambda _: self._forget(job_id, owner))

    def forget(self, job_ids: Iterable[str]) -> None:
        """End the deliveries of jobs that are removed."""
        for job_id in job_ids:
            if task := self._tasks.get(job_id):
                task.cancel()

    async def stop(self) -> None:
        """End all attempts; what is not delivered stays pending, for the next start."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _room(self, owner: str) -> bool:
        own = self._of_owner[owner]
        if len(self._tasks) >= self._most:
            return own < self._most // 100
        return own < self._most // 4

    def _forget(self, job_id: str, owner: str) -> None:
        del self._tasks[job_id]
        self._of_owner[owner] -= 1
        if not self._of_owner[owner]:
            del self._of_owner[owner]

    async def _deliver(
        self,
        job_id: str,
        url: str,
        body: Mapping[str, Any],
        attempts: int,
        owner: str,
        *,
        room: bool,
    ) -> None:
        host = URL(url).raw_host or ""
        content = json.dumps(body).encode()
        if not room:
            await self._say(job_id, _failed(attempts, "too many other deliveries wait"), host)
        elif len(content) > LONGEST_BODY:
            await self._say(job_id, _failed(attempts, "the body is too long"), host)
        else:
            # The table forgets a host when no delivery to it is left.
            known = self._hosts.setdefault((owner, host), _Host(owner=owner, name=host))
            await self._try(job_id, url, content, attempts, known)

    async def _try(self, job_id: str, url: str, content: bytes, attempts: int, host: _Host) -> None:
        until = self._steady() + self._retries.total
        while True:
            async with self._turn(host):
                attempts, began = attempts + 1, self._steady()
                delivery, asked = await self._attempt(job_id, url, content, attempts, host.owner)
            self._heard(host, delivery, self._steady() - began)
            wait = self._retries.wait(attempts, asked, self._chance())
            if delivery.state is DeliveryState.PENDING and (
                attempts >= self._retries.attempts or self._steady() + wait > until
            ):
                delivery = _failed(attempts, delivery.detail, delivery.status)
            await self._say(job_id, delivery, host.name)
            if delivery.state is not DeliveryState.PENDING:
                return
            await self._sleep(wait)

    @asynccontextmanager
    async def _turn(self, host: _Host) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        turn: asyncio.Future[Place[Any]] = asyncio.get_running_loop().create_future()
        self._line.put(host.owner, host.group, turn)
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn.cancelled():
                self._line.discard(host.owner, turn)
            else:
                self._line.give_back(turn.result())
            self._hand_out()

    def _hand_out(self) -> None:
        while (place := self._line.take()) is not None:
            if place.item.done():  # Cancelled just now.
                self._line.give_back(place)
            else:
                place.item.set_result(place)

    def _heard(self, host: _Host, delivery: Delivery, seconds: float) -> None:
        """Keep whether a host answers soon: the others must not take all places of a key."""
        silent = delivery.status is None and delivery.state is DeliveryState.PENDING
        host.late = silent or seconds > LATE_SECONDS
        if host.late:
            self._line.regroup(host.owner, host.name, LATE)

    async def _attempt(
        self, job_id: str, url: str, content: bytes, attempts: int, owner: str
    ) -> tuple[Delivery, float | None]:
        """Return what came of one attempt, and the wait that the receiver asked for."""
        headers = {
            "Content-Type": "application/json",
            **signature.signed(self._keys_of(owner), f"{job_id}-ended", int(self._wall()), content),
        }
        try:
            answer = await self._post(url, content, headers, owner)
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
