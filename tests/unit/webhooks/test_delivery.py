"""Telling others that a job is over."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from service.config.webhook_key import webhook_key
from service.core.outcome import Delivery, DeliveryState
from service.core.spec import GenerationSpec
from service.errors import StoreUnavailable
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd
from service.jobs.store.sqlite import SqliteStore
from service.jobs.store.stored import StoredJob
from service.system.fair_line import Limits
from service.webhooks.delivery import LIMITS, Answer, Refused, Retries, Unreachable, Webhooks
from tests.support.receiver import verify

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
            keys_of=lambda owner: [webhook_key(f"{SECRET} of {owner}")],
            sleep=self.sleep,
            chance=lambda: 1.0,
            wall=lambda: self.now,
            steady=lambda: self.now,
            **settings,
        )

    async def post(self, url, body, headers, owner):
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
        body = {"id": JOB, "state": "succeeded"}
        self.webhooks.deliver(JOB, URL, body, owner="anna", **values)
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
    assert verify(webhook_key(f"{SECRET} of anna"), headers, body, world.now)
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
    world.webhooks.deliver(JOB, URL, {"prompt": "x" * 300_000}, owner="anna")
    await asyncio.gather(*world.webhooks._tasks.values())
    assert (world.sent, world.told[0][1].state) == ([], FAILED)


async def test_the_deliveries_of_a_key_are_bounded():
    """Beyond its share one fails with the reason; other keys still have their own."""
    world = World(200, most=12)
    for number in range(5):
        world.webhooks.deliver(f"{number:032x}", URL, {}, owner="greedy")
    world.webhooks.deliver(f"{9:032x}", URL, {}, owner="anna")
    await asyncio.gather(*world.webhooks._tasks.values())
    states = {job_id[-1]: delivery.state for job_id, delivery in world.told}
    assert states == dict.fromkeys("0129", DELIVERED) | dict.fromkeys("34", FAILED)
    world.webhooks.deliver("f" * 32, URL, {}, owner="greedy")
    await asyncio.gather(*world.webhooks._tasks.values())
    assert world.told[-1] == ("f" * 32, Delivery(state=DELIVERED, attempts=1, status=200))


async def test_a_key_keeps_some_deliveries_when_others_have_them_all():
    """However many keys are greedy."""
    gate = Gate()
    webhooks = Webhooks(gate, nobody, most=100)
    for number in range(100):
        webhooks.deliver(f"greedy{number}", URL, {}, owner=f"greedy{number % 4}")
    webhooks.deliver("patient", "https://patient.org/", {}, owner="patient")
    await turns()
    assert "https://patient.org/" in gate.inside
    await webhooks.stop()


class Gate:
    """A receiver that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[str] = []
        self.most = 0

    async def __call__(self, url, body, headers, owner):
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
    webhooks = Webhooks(gate, nobody, limits=Limits(most=9, each=5, alike=2))
    for number in range(10):
        webhooks.deliver(f"slow{number}", "https://slow.org/", {}, owner="anna")
    await turns()
    assert gate.inside == ["https://slow.org/"] * 2
    for number in range(10):
        webhooks.deliver(f"other{number}", f"https://other{number}.org/", {}, owner="anna")
    await turns()
    assert len(gate.inside) == 5
    gate.open.set()
    await asyncio.gather(*webhooks._tasks.values())
    assert (gate.most, webhooks.pending, len(webhooks._hosts)) == (5, 0, 0)


@pytest.mark.parametrize("greedy", [1, 8, 40])
async def test_silent_receivers_delay_no_other_key(greedy):
    """However many keys have them: a key without a delivery under way gets a place at once."""
    gate = Gate()
    webhooks = Webhooks(gate, nobody)
    for number in range(160 * greedy):
        url = f"https://silent{number % 40}.org/"
        webhooks.deliver(f"silent{number}", url, {}, owner=f"greedy{number % greedy}")
    await turns()
    assert len(gate.inside) >= LIMITS.each
    for owner in ("anna", "bert"):
        webhooks.deliver(owner, f"https://{owner}.org/", {}, owner=owner)
    await turns()
    assert {"https://anna.org/", "https://bert.org/"} <= {*gate.inside}
    await webhooks.stop()


async def test_a_receiver_that_others_use_as_well_is_no_common_place():
    """Many keys send to one provider; what one sends there does not delay another."""
    gate = Gate()
    webhooks = Webhooks(gate, nobody)
    for number in range(40):
        webhooks.deliver(f"greedy{number}", URL, {}, owner="greedy")
    webhooks.deliver("anna", f"{URL}&of=anna", {}, owner="anna")
    await turns()
    assert f"{URL}&of=anna" in gate.inside
    await webhooks.stop()


@pytest.mark.parametrize("seconds", [0.0, 14.0])
async def test_hosts_that_were_late_share_the_places_of_one(seconds):
    """A key's other receivers hear of its jobs meanwhile, also one that answers again."""
    gate, tried, now = Gate(), set(), 0.0

    async def post(url, body, headers, owner):
        nonlocal now
        if "late" in url and url not in tried:
            tried.add(url)
            now += seconds
            if seconds:
                return Answer(status=503)
            raise Unreachable("did not answer in time")
        return await gate(url, body, headers, owner)

    webhooks = Webhooks(
        post,
        nobody,
        sleep=lambda _: asyncio.sleep(0),
        steady=lambda: now,
        limits=Limits(most=9, each=5, alike=2),
    )
    for number in range(20):
        webhooks.deliver(f"late{number}", f"https://late{number}.org/", {}, owner="anna")
    await turns(200)
    assert (len(tried), len(gate.inside)) == (20, 2)
    webhooks.deliver("well", "https://well.org/", {}, owner="anna")
    await turns()
    assert gate.inside[2:] == ["https://well.org/"]
    gate.open.set()
    await asyncio.gather(*webhooks._tasks.values())
    assert (gate.most, webhooks.pending) == (3, 0)


async def test_a_wait_for_the_next_attempt_holds_no_place():
    """Others are delivered while it lasts."""
    asleep = asyncio.Event()

    async def wait(_):
        asleep.set()
        await asyncio.Event().wait()

    world = World(503, 200, limits=Limits(most=1, each=1, alike=1))
    world.webhooks._sleep = wait
    world.webhooks.deliver(JOB, URL, {}, owner="anna")
    await asleep.wait()
    world.webhooks.deliver("b" * 32, URL, {}, owner="anna")
    await world.webhooks._tasks["b" * 32]
    assert world.told[-1] == ("b" * 32, Delivery(state=DELIVERED, attempts=1, status=200))
    await world.webhooks.stop()


async def test_what_is_on_its_way_at_the_end_stays_pending():
    """Nobody is told of an end that was none; nothing more is begun."""
    told = []

    async def tell(_, delivery):
        told.append(delivery)

    webhooks = Webhooks(Gate(), tell)
    webhooks.deliver(JOB, URL, {}, owner="anna")
    await turns()
    await webhooks.stop()
    webhooks.deliver("b" * 32, URL, {}, owner="anna")
    assert (told, webhooks.pending) == ([], 0)


async def test_what_a_crash_left_pending_is_delivered_after_it(tmp_path):
    """The row knows the address and the attempts; the next start goes on from there."""
    path = tmp_path / "jobs.sqlite3"
    job = StoredJob(
        id=JOB, owner="anna", request=GenerationSpec(prompt="a"), created_at=0.0, webhook=URL
    )
    async with SqliteStore(path) as store:
        await store.add(job)
        await store.finish(JOB, JobEnd(state=JobState.SUCCEEDED))
        before = World(503, retries=Retries(attempts=3))
        waiting = asyncio.Event()

        async def wait(_):
            waiting.set()
            await asyncio.Event().wait()

        before.webhooks._told, before.webhooks._sleep = store.deliver, wait
        before.webhooks.deliver(JOB, URL, {}, owner="anna")
        await waiting.wait()
        await before.webhooks.stop()
    async with SqliteStore(path) as store:
        after = World(200)
        after.webhooks._told = store.deliver
        for left in await store.undelivered():
            assert left.webhook is not None
            assert left.delivery == Delivery(
                attempts=1, status=503, detail="the receiver was not ready"
            )
            after.webhooks.deliver(
                left.id, left.webhook, {}, owner="anna", attempts=left.delivery.attempts
            )
        await asyncio.gather(*after.webhooks._tasks.values())
        assert (await store.get(JOB, "anna")).delivery == Delivery(
            state=DELIVERED, attempts=2, status=200
        )
        assert await store.undelivered() == []
    assert before.sent[0][2]["Webhook-Id"] == after.sent[0][2]["Webhook-Id"]


async def test_a_job_is_on_its_way_once():
    """Asking twice sends once."""
    world = World(200)
    world.webhooks.deliver(JOB, URL, {}, owner="anna")
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
        world.webhooks.deliver(JOB, URL, {}, owner="anna")
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
