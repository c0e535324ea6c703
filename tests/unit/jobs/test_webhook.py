"""Telling others that a job is over."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from service.diffusion.generation import GenerationRequest
from service.errors import StoreUnavailable
from service.jobs import signature
from service.jobs.job import JobState
from service.jobs.store import JobStore
from service.jobs.stored import Delivery, DeliveryState, StoredJob
from service.jobs.webhook import Answer, Refused, Retries, Unreachable, Webhooks

PENDING, DELIVERED, FAILED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FAILED
URL = "https://hooks.example.org/done?token=1"
SECRET = "a secret of some length"  # noqa: S105
JOB = "a" * 32


class World:
    """A receiver, a store and a clock that a test sets."""

    def __init__(self, *answers, **settings) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []
        self.told: list[tuple[str, Delivery]] = []
        self.slept: list[float] = []
        self.now = 1_000.0
        self.webhooks = Webhooks(
            self.post,
            self.tell,
            secrets=[SECRET],
            sleep=self.sleep,
            chance=lambda: 1.0,
            wall=lambda: self.now,
            steady=lambda: self.now,
            **settings,
        )

    async def post(self, url, body, headers):
        self.sent.append((url, body, dict(headers)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(status=answer)

    async def tell(self, job_id, delivery):
        self.told.append((job_id, delivery))

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    async def deliver(self, **values):
        self.webhooks.deliver(JOB, URL, {"id": JOB, "state": "succeeded"}, **values)
        await asyncio.gather(*self.webhooks._tasks.values())
        return self.told[-1][1]


async def test_a_delivery_is_signed_and_told():
    """The body is JSON, and says the same to every reader."""
    world = World(204)
    assert await world.deliver() == Delivery(state=DELIVERED, attempts=1, status=204)
    ((url, body, headers),) = world.sent
    assert url == URL
    assert json.loads(body) == {"id": JOB, "state": "succeeded"}
    assert headers["Content-Type"] == "application/json"
    assert signature.verify(signature.key(SECRET), headers, body, world.now)
    assert world.told == [(JOB, Delivery(state=DELIVERED, attempts=1, status=204))]
    assert world.webhooks.pending == 0


@pytest.mark.parametrize(
    "answer", [500, 502, 503, 504, 599, 408, 425, 429, Unreachable("did not answer in time")]
)
async def test_what_may_pass_is_tried_again(answer):
    """Each attempt has its own time, and all of them one id."""
    world = World(answer, answer, 200)
    assert await world.deliver() == Delivery(state=DELIVERED, attempts=3, status=200)
    assert world.slept == [5.0, 10.0]
    assert [one[1].state for one in world.told] == [PENDING, PENDING, DELIVERED]
    assert len({headers["Webhook-Id"] for _, _, headers in world.sent}) == 1
    assert [headers["Webhook-Timestamp"] for _, _, headers in world.sent] == [
        "1000",
        "1005",
        "1015",
    ]


@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        (400, 400, "the receiver refused it"),
        (404, 404, "the receiver refused it"),
        (410, 410, "the receiver refused it"),
        (301, 301, "redirects are not followed"),
        (307, 307, "redirects are not followed"),
        (Refused("is no public address"), None, "is no public address"),
    ],
)
async def test_what_stays_so_is_not_tried_again(answer, status, detail):
    """The job says why."""
    world = World(answer)
    assert await world.deliver() == Delivery(state=FAILED, attempts=1, status=status, detail=detail)
    assert (len(world.sent), world.slept) == (1, [])


async def test_attempts_are_counted_over_restarts():
    """A receiver that is gone for good is not asked for ever."""
    world = World(503, retries=Retries(attempts=4))
    final = await world.deliver(attempts=2)
    assert final == Delivery(
        state=FAILED, attempts=4, status=503, detail="the receiver was not ready"
    )
    assert [one[1].attempts for one in world.told] == [3, 4]


async def test_the_whole_time_is_bounded():
    """However many attempts are left."""
    world = World(503, retries=Retries(attempts=99, total=100.0))
    assert (await world.deliver()).state is FAILED
    assert world.slept == [5.0, 10.0, 20.0, 40.0]


@pytest.mark.parametrize(("asked", "slept"), [(60.0, 60.0), (1.0, 5.0), (1e9, 900.0), (None, 5.0)])
async def test_a_receiver_may_ask_for_a_longer_wait(asked, slept):
    """Within bounds; a shorter one than ours it does not get."""
    world = World(Answer(status=429, retry_after=asked), 200)
    assert (await world.deliver()).state is DELIVERED
    assert world.slept == [slept]


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_waits_double_up_to_the_longest(chance):
    """And are shortened by chance, by half at most, so that not all come at once."""
    retries = Retries(first=2.0, longest=100.0)
    waits = [retries.wait(number, None, chance) for number in range(1, 2000)]
    assert waits[:3] == [one * (0.5 + 0.5 * chance) for one in (2.0, 4.0, 8.0)]
    assert max(waits) == waits[-1] == 100.0 * (0.5 + 0.5 * chance)


async def test_a_body_that_is_too_long_is_not_sent():
    """It would be a mistake of ours; the receiver must not pay for it."""
    world = World(200)
    world.webhooks.deliver(JOB, URL, {"prompt": "x" * 300_000})
    await asyncio.gather(*world.webhooks._tasks.values())
    assert (world.sent, world.told[0][1].state) == ([], FAILED)


async def test_the_line_of_deliveries_is_bounded():
    """Beyond it a delivery fails with the reason, and the job's own answer is still there."""
    world = World(200, most=2)
    for number in range(3):
        world.webhooks.deliver(f"{number:032x}", URL, {})
    await asyncio.gather(*world.webhooks._tasks.values())
    states = {job_id[-1]: delivery.state for job_id, delivery in world.told}
    assert states == {"0": DELIVERED, "1": DELIVERED, "2": FAILED}
    assert len(world.sent) == 2


class Gate:
    """A receiver that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[str] = []
        self.most = 0

    async def __call__(self, url, body, headers):
        self.inside.append(url)
        self.most = max(self.most, len(self.inside))
        await self.open.wait()
        self.inside.remove(url)
        return Answer(status=200)


async def turns(count=50):
    for _ in range(count):
        await asyncio.sleep(0)


async def nobody(job_id, delivery):
    """Keep nothing."""


async def test_a_slow_receiver_holds_up_its_own_deliveries_only():
    """So many at once to one host, and so many in all."""
    gate = Gate()
    webhooks = Webhooks(gate, nobody, at_once=5, per_host=2)
    for number in range(10):
        webhooks.deliver(f"slow{number}", "https://slow.org/", {})
    await turns()
    assert gate.inside == ["https://slow.org/"] * 2
    for number in range(10):
        webhooks.deliver(f"other{number}", f"https://other{number}.org/", {})
    await turns()
    assert len(gate.inside) == 5
    gate.open.set()
    await asyncio.gather(*webhooks._tasks.values())
    assert (gate.most, webhooks.pending, len(webhooks._hosts)) == (5, 0, 0)


async def test_what_is_on_its_way_at_the_end_stays_pending():
    """Nobody is told of an end that was none; nothing more is begun."""
    told = []

    async def tell(_, delivery):
        told.append(delivery)

    webhooks = Webhooks(Gate(), tell)
    webhooks.deliver(JOB, URL, {})
    await turns()
    await webhooks.stop()
    webhooks.deliver("b" * 32, URL, {})
    assert (told, webhooks.pending) == ([], 0)


async def test_what_a_crash_left_pending_is_delivered_after_it(tmp_path):
    """The row knows the address and the attempts; the next start goes on from there."""
    path = tmp_path / "jobs.sqlite3"
    job = StoredJob(
        id=JOB, key="anna", request=GenerationRequest(prompt="a"), created_at=0.0, webhook=URL
    )
    async with JobStore(path) as store:
        await store.add(job)
        await store.finish(JOB, JobState.SUCCEEDED)
        before = World(503, retries=Retries(attempts=3))
        waiting = asyncio.Event()

        async def wait(_):
            waiting.set()
            await asyncio.Event().wait()

        before.webhooks._told, before.webhooks._sleep = store.deliver, wait
        before.webhooks.deliver(JOB, URL, {})
        await waiting.wait()
        await before.webhooks.stop()
    async with JobStore(path) as store:
        after = World(200)
        after.webhooks._told = store.deliver
        for left in await store.undelivered():
            assert left.webhook is not None
            assert left.delivery == Delivery(
                attempts=1, status=503, detail="the receiver was not ready"
            )
            after.webhooks.deliver(left.id, left.webhook, {}, attempts=left.delivery.attempts)
        await asyncio.gather(*after.webhooks._tasks.values())
        assert (await store.get(JOB, "anna")).delivery == Delivery(
            state=DELIVERED, attempts=2, status=200
        )
        assert await store.undelivered() == []
    assert before.sent[0][2]["Webhook-Id"] == after.sent[0][2]["Webhook-Id"]


async def test_a_job_is_on_its_way_once():
    """Asking twice sends once."""
    world = World(200)
    world.webhooks.deliver(JOB, URL, {})
    await world.deliver()
    assert len(world.sent) == 1


async def test_a_store_that_fails_does_not_end_the_retries():
    """At worst the receiver hears of it again after a restart, under the same id."""
    world = World(503, 200)
    calls = []

    async def tell(_, delivery):
        calls.append(delivery.state)
        raise StoreUnavailable

    world.webhooks._told = tell
    with capture_logs() as logs:
        world.webhooks.deliver(JOB, URL, {})
        await asyncio.gather(*world.webhooks._tasks.values())
    assert calls == [PENDING, DELIVERED]
    assert "webhook_state_lost" in {line["event"] for line in logs}


async def test_a_mistake_of_ours_counts_as_an_attempt():
    """It is in the log; no delivery is lost in silence."""
    world = World(RuntimeError("ours"), 200)
    with capture_logs() as logs:
        assert await world.deliver() == Delivery(state=DELIVERED, attempts=2, status=200)
    assert "webhook_attempt_failed" in {line["event"] for line in logs}


async def test_the_log_names_the_host_and_not_the_address():
    """An address may hold a token."""
    world = World(200)
    with capture_logs() as logs:
        await world.deliver()
    assert [line["host"] for line in logs] == ["hooks.example.org"]
    assert "token" not in str(logs)
