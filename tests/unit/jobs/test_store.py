"""What is kept of jobs, and who sees it."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from service.diffusion.generation import GenerationRequest
from service.errors import JobExpired, NotFound, OutOfMemory, ValidationFailed
from service.jobs.job import FINAL, JobState, new_id
from service.jobs.schema import UNFINISHED
from service.jobs.store import JobStore
from service.jobs.stored import Delivery, DeliveryState, StoredJob

SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path, clock):
    """Open a store in a folder of its own."""
    async with JobStore(tmp_path / "data" / "jobs.sqlite3", clock=clock) as opened:
        yield opened


def job(key: str = "anna", prompt: str = "a boat", **values) -> StoredJob:
    made = {"id": new_id(), "created_at": 900.0, **values}
    return StoredJob(key=key, request=GenerationRequest(prompt=prompt), **made)


async def test_a_job_is_found_by_its_id_and_its_key_only(store):
    """To another key it does not exist, in the same words as one that never did."""
    kept = job(metadata={"seed": 4}, priority=2, deadline_at=990.0, trace_id="ab")
    assert await store.add(kept) == kept
    assert await store.get(kept.id, "anna") == kept
    with pytest.raises(NotFound) as of_another:
        await store.get(kept.id, "bert")
    with pytest.raises(NotFound) as of_nobody:
        await store.get(new_id(), "bert")
    assert of_another.value.detail == of_nobody.value.detail


async def test_a_job_begins_waits_again_and_ends(store, clock):
    """Attempts are counted over all of it; the times are those of the clock."""
    kept = await store.add(job())
    clock.now = 1_001.0
    assert await store.begin(kept.id)
    assert await store.requeue(kept.id)
    clock.now = 1_002.0
    assert await store.begin(kept.id)
    running = await store.get(kept.id, "anna")
    assert (running.state, running.attempts, running.started_at) == (RUNNING, 2, 1_002.0)
    clock.now = 1_003.0
    assert await store.finish(
        kept.id, SUCCEEDED, steps_done=20, metadata={"seed": 7}, model_version="demo@1"
    )
    ended = await store.get(kept.id, "anna")
    assert (ended.state, ended.finished_at, ended.steps_done) == (SUCCEEDED, 1_003.0, 20)
    assert (ended.metadata, ended.model_version, ended.error_code) == ({"seed": 7}, "demo@1", "")
    assert ended.final


async def test_a_failure_keeps_its_code_and_its_words(store):
    """They are told to whoever asks later."""
    kept = await store.add(job())
    assert await store.finish(kept.id, FAILED, error=OutOfMemory("Try 512x512."))
    ended = await store.get(kept.id, "anna")
    assert (ended.error_code, ended.error_detail) == ("out_of_memory", "Try 512x512.")


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_a_job_ends_once(store, state):
    """Of any number of ends at the same moment one is told that it was the one."""
    kept = await store.add(job())
    told = await asyncio.gather(*(store.finish(kept.id, state) for _ in range(20)))
    assert sorted(told) == [False] * 19 + [True]
    assert not await store.begin(kept.id)
    assert not await store.requeue(kept.id)
    assert not await store.finish(kept.id, SUCCEEDED)
    assert (await store.get(kept.id, "anna")).state == state


async def test_what_is_no_end_ends_nothing(store):
    """A mistake in the program is told at once."""
    kept = await store.add(job())
    with pytest.raises(ValueError, match="cannot end as running"):
        await store.finish(kept.id, RUNNING)
    assert not await store.finish(new_id(), SUCCEEDED)
    assert not await store.begin(new_id())


async def test_an_id_is_given_out_once(store):
    """Two jobs with one id are a mistake of ours, not of the file."""
    kept = await store.add(job())
    with pytest.raises(sqlite3.IntegrityError):
        await store.add(job(id=kept.id))
    assert (await store.counts())[QUEUED] == 1


async def test_an_idempotency_key_brings_back_the_first_job(store):
    """Of many at the same moment one is kept; the digest tells a replay from a conflict."""
    jobs = [job(idempotency_key="once", idempotency_digest=f"d{i}") for i in range(20)]
    stand = await asyncio.gather(*(store.add(one) for one in jobs))
    assert {one.id for one in stand} == {jobs[0].id}
    assert stand[-1].idempotency_digest == "d0"
    assert (await store.counts())[QUEUED] == 1


async def test_idempotency_keys_of_two_api_keys_are_two(store):
    """Nobody meets another's job by guessing its idempotency key."""
    jobs = [job("anna", idempotency_key="1"), job("bert", idempotency_key="1"), job(), job()]
    assert [await store.add(one) for one in jobs] == jobs


async def test_an_idempotency_key_can_be_let_go_when_its_job_is_over(store):
    """Then it stands for another; the first job stays what it was."""
    first = await store.add(job(idempotency_key="once", idempotency_digest="a"))
    assert not await store.release(first.id)
    await store.finish(first.id, FAILED)
    assert await store.release(first.id)
    assert await store.find("anna", "once") is None
    second = job(idempotency_key="once", idempotency_digest="b")
    assert await store.add(second) == second
    assert (await store.get(first.id, "anna")).state is FAILED


async def test_an_idempotency_key_is_looked_up_for_its_api_key(store):
    """Before a job is put into the queue, to see whether it has to be."""
    kept = await store.add(job(idempotency_key="once"))
    assert await store.find("anna", "once") == kept
    assert await store.find("bert", "once") is None
    assert await store.find("anna", "twice") is None


async def test_pages_show_the_newest_first_and_each_job_once(store):
    """Whatever comes or goes between two pages, nothing is shown twice or left out."""
    ids = [(await store.add(job(created_at=5.0 - i))).id for i in range(7)]
    await store.add(job("bert"))
    first = await store.page("anna", limit=3)
    assert [one.id for one in first.jobs] == ids[:3:-1]
    newer = await store.add(job())
    await store.finish(ids[4], SUCCEEDED)
    assert await store.expire(ids=[ids[4]]) == [ids[4]]  # The last one that was shown.
    second = await store.page("anna", limit=3, cursor=first.cursor)
    third = await store.page("anna", limit=3, cursor=second.cursor)
    assert [one.id for one in (*second.jobs, *third.jobs)] == ids[3::-1]
    assert third.cursor is None
    assert (await store.page("anna", limit=1)).jobs[0].id == newer.id


async def test_a_page_that_ends_with_the_last_job_is_the_last_page(store):
    """No client is sent for an empty page."""
    for _ in range(2):
        await store.add(job())
    assert (await store.page("anna", limit=2)).cursor is None
    assert (await store.page("nobody")).jobs == ()


async def test_pages_can_be_of_one_state(store):
    """Such as everything that failed."""
    ids = [(await store.add(job())).id for _ in range(4)]
    await store.finish(ids[1], FAILED)
    await store.finish(ids[3], FAILED)
    page = await store.page("anna", state=FAILED, limit=1)
    assert [one.id for one in page.jobs] == [ids[3]]
    page = await store.page("anna", state=FAILED, limit=1, cursor=page.cursor)
    assert ([one.id for one in page.jobs], page.cursor) == ([ids[1]], None)


@pytest.mark.parametrize("cursor", ["", "nonsense", "'; DROP TABLE jobs; --", "0" * 32])
async def test_a_cursor_of_nobody_or_of_another_key_is_refused(store, cursor):
    """It tells nothing of other keys, not even that they have jobs."""
    theirs = await store.add(job("bert"))
    for wrong in (cursor, theirs.id):
        with pytest.raises(ValidationFailed, match="cursor"):
            await store.page("anna", cursor=wrong)


async def test_what_is_unfinished_comes_back_in_the_order_of_acceptance(store):
    """The time of day may have jumped; the order does not ask it."""
    ids = [(await store.add(job(created_at=at))).id for at in (9e9, 5.0, 0.0, 7e8, 6.0)]
    await store.begin(ids[3])
    await store.finish(ids[1], CANCELLED)
    unfinished = await store.unfinished()
    assert [one.id for one in unfinished] == [ids[0], ids[2], ids[3], ids[4]]
    assert [one.attempts for one in unfinished] == [0, 0, 1, 0]


async def test_a_request_of_another_version_is_marked(store, tmp_path):
    """It must be failed with a reason, not run as something else."""
    kept = await store.add(job())
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as other:
        other.execute("""UPDATE jobs SET request = '{"prompt": "a", "mask": "b"}'""")
    other.close()
    assert [one.complete for one in await store.unfinished()] == [False]
    assert not (await store.get(kept.id, "anna")).complete


async def test_what_expired_is_gone_and_not_unknown(store, clock):
    """Its prompt and its address are wiped, and its idempotency key is free again."""
    old, young = [
        await store.add(job(idempotency_key=name, webhook="https://a.org/")) for name in "ab"
    ]
    running = await store.add(job())
    await store.begin(running.id)
    await store.finish(old.id, SUCCEEDED, metadata={"prompt": "a boat"})
    clock.now += 100
    await store.finish(young.id, SUCCEEDED)
    assert await store.expire(max_age_seconds=50) == [old.id]
    assert await store.expire(max_age_seconds=50) == []
    with pytest.raises(JobExpired):
        await store.get(old.id, "anna")
    with pytest.raises(NotFound):
        await store.get(old.id, "bert")
    assert [one.id for one in (await store.page("anna")).jobs] == [running.id, young.id]
    assert [one.id for one in await store.undelivered()] == [young.id]
    assert await store.with_pictures() == {young.id, running.id}
    again = job(idempotency_key="a")
    assert await store.add(again) == again


async def test_nothing_of_what_a_client_wrote_is_left_of_an_expired_job(store, tmp_path):
    """Only its id, its owner and its place are."""
    kept = await store.add(
        job(prompt="private", webhook="https://a.org/private", idempotency_key="private")
    )
    await store.finish(kept.id, FAILED, error=OutOfMemory("private"), metadata={"p": "private"})
    await store.deliver(kept.id, Delivery(detail="private"))
    await store.expire(ids=[kept.id])
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as other:
        (row,) = other.execute("SELECT * FROM jobs").fetchall()
    other.close()
    assert kept.id in row
    assert not [value for value in row if "private" in str(value)]


async def test_an_unfinished_job_never_expires(store, clock):
    """However long it waits, and whoever asks."""
    kept = await store.add(job(created_at=0.0))
    clock.now = 9e9
    assert await store.expire(max_age_seconds=1, ids=[kept.id]) == []
    assert [one.id for one in await store.unfinished()] == [kept.id]


async def test_expired_jobs_are_forgotten_after_their_time(store, clock):
    """Ids are small, but not nothing."""
    kept = await store.add(job())
    await store.finish(kept.id, SUCCEEDED)
    await store.expire(ids=[kept.id])
    assert await store.purge(10) == 0
    clock.now += 11
    assert await store.purge(10) == 1
    with pytest.raises(NotFound):
        await store.get(kept.id, "anna")


async def test_the_state_of_a_webhook_is_kept(store):
    """What is not delivered when the service ends is asked for at the next start."""
    kept, silent = await store.add(job(webhook="https://a.org/")), await store.add(job())
    assert await store.undelivered() == []  # There is nothing to tell yet.
    await store.finish(kept.id, SUCCEEDED)
    await store.finish(silent.id, SUCCEEDED)
    tried = Delivery(attempts=2, status=503, detail="the receiver was not ready")
    assert await store.deliver(kept.id, tried)
    assert [one.delivery for one in await store.undelivered()] == [tried]
    done = Delivery(state=DeliveryState.DELIVERED, attempts=3, status=200)
    assert await store.deliver(kept.id, done)
    assert (await store.get(kept.id, "anna")).delivery == done
    assert await store.undelivered() == []
    assert not await store.deliver(silent.id, done)


async def test_counts_are_of_one_key_or_of_all(store):
    """States that no job is in are there, with 0."""
    ids = [(await store.add(job())).id for _ in range(3)]
    await store.add(job("bert"))
    await store.begin(ids[0])
    await store.finish(ids[1], FAILED)
    none = dict.fromkeys(JobState, 0)
    assert await store.counts() == {**none, QUEUED: 2, RUNNING: 1, FAILED: 1}
    assert await store.counts("bert") == {**none, QUEUED: 1}
    await store.expire(ids=[ids[1]])
    assert (await store.counts())[FAILED] == 0


def test_unfinished_means_the_same_in_both_languages():
    """The index and the states are written down in two places."""
    assert f"state IN {tuple(str(s) for s in JobState if s not in FINAL)}" == UNFINISHED


async def test_what_an_end_costs_is_written_with_it(store):
    """Once, by the end that counts, in the minute of the acceptance."""
    one, two = await store.add(job()), await store.add(job())
    assert await store.finish(one.id, SUCCEEDED, paid=4)
    assert not await store.finish(one.id, SUCCEEDED, paid=4)
    assert await store.finish(two.id, CANCELLED, paid=1)
    assert await store.finish((await store.add(job("bert"))).id, FAILED)
    rows = await store.run(lambda c: c.execute("SELECT key, minute, images FROM usage").fetchall())
    assert rows == [("anna", int(one.created_at // 60), 5)]


async def test_an_end_may_let_its_idempotency_key_go(store):
    """Then the next job takes it; else it stands for the one that ended."""
    for forget_key in (True, False):
        kept = await store.add(job(idempotency_key="1"))
        assert await store.finish(kept.id, FAILED, forget_key=forget_key)
        found = await store.find("anna", "1")
        assert (found is None) is forget_key
    assert found.idempotency_digest == kept.idempotency_digest


class Model:
    """What the store should do, in a dictionary."""

    def __init__(self, store: JobStore, rng: random.Random) -> None:
        self.store, self.rng = store, rng
        self.jobs: dict[str, StoredJob | None] = {}

    async def add(self, _: str) -> None:
        new = job(
            self.rng.choice(["anna", "bert"]), idempotency_key=self.rng.choice([None, "1", "2"])
        )
        mine = (new.key, new.idempotency_key)
        same = [one for one in self.jobs.values() if one and (one.key, one.idempotency_key) == mine]
        stands = await self.store.add(new)
        if new.idempotency_key and same:
            assert stands.id == same[0].id
        else:
            assert stands == new
            self.jobs[new.id] = new

    async def begin(self, known: str) -> None:
        assert await self.store.begin(known) == self.is_open(known)

    async def requeue(self, known: str) -> None:
        assert await self.store.requeue(known) == self.is_open(known)

    async def finish(self, known: str) -> None:
        now = self.jobs.get(known)
        state = self.rng.choice(sorted(FINAL))
        assert await self.store.finish(known, state) == self.is_open(known)
        if now is not None and not now.final:
            self.jobs[known] = await self.store.get(known, now.key)

    async def expire(self, known: str) -> None:
        now = self.jobs.get(known)
        over = now is not None and now.final
        assert await self.store.expire(ids=[known]) == ([known] if over else [])
        if over:
            self.jobs[known] = None

    def is_open(self, known: str) -> bool:
        now = self.jobs.get(known)
        return now is not None and not now.final


async def listed(store: JobStore, key: str) -> list[str]:
    """Return the ids on all pages."""
    page = await store.page(key, limit=4)
    shown = list(page.jobs)
    while page.cursor is not None:
        page = await store.page(key, limit=4, cursor=page.cursor)
        shown += page.jobs
    return [one.id for one in shown]


@pytest.mark.parametrize("seed", range(8))
async def test_any_story_ends_as_a_simple_model_says(store, clock, seed):
    """Random calls under a clock that jumps: nothing lost, doubled, or seen by another."""
    rng = random.Random(seed)  # noqa: S311 - test values
    model = Model(store, rng)
    calls = [model.add, model.add, model.begin, model.requeue, model.finish, model.expire]
    for _ in range(120):
        clock.now += rng.choice([-500.0, 0.0, 1.0, 1e6])
        await rng.choice(calls)(rng.choice([*model.jobs, new_id()]))
    live = [one for one in model.jobs.values() if one is not None]
    left = [one.id for one in live if not one.final]
    assert [one.id for one in await store.unfinished()] == left
    for key in ("anna", "bert"):
        assert await listed(store, key) == [one.id for one in live if one.key == key][::-1]


WRITER = """
import asyncio, sys
from pathlib import Path
from service.diffusion.generation import GenerationRequest
from service.jobs.job import JobState, new_id
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob

async def main():
    async with JobStore(Path(sys.argv[1])) as store:
        for number in range(100_000):
            request = GenerationRequest(prompt=str(number))
            job = StoredJob(id=new_id(), key="anna", request=request, created_at=0.0)
            await store.add(job)
            print("added", job.id, flush=True)
            if number % 2:
                await store.finish(job.id, JobState.SUCCEEDED)
                print("ended", job.id, flush=True)

asyncio.run(main())
"""


def killed(path: Path, lines: int) -> list[list[str]]:
    """Kill a process in the middle of writing, and return what it said that it had done."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout
    return [
        line.split() for line in said if line.startswith(("added", "ended")) and line[-1] == "\n"
    ]


async def test_what_was_kept_outlives_a_kill(tmp_path):
    """Every answer that left before a kill -9 holds after it."""
    path = tmp_path / "jobs.sqlite3"
    said = [line for lines in (7, 20, 33) for line in killed(path, lines)]
    added = [name for what, name in said if what == "added"]
    ended = [name for what, name in said if what == "ended"]
    async with JobStore(path) as store:
        states = {one: (await store.get(one, "anna")).state for one in added}
        assert {states[one] for one in ended} == {SUCCEEDED}
        unfinished = [one.id for one in await store.unfinished()]
        assert [one for one in unfinished if one in states] == [
            one for one in added if states[one] is QUEUED
        ]
        # At most one job per kill was kept without its answer having left.
        assert sum((await store.counts()).values()) - len(added) <= 3


async def test_the_event_loop_runs_while_the_store_waits(store, tmp_path):
    """Another program holds the file: calls wait, everything else goes on."""
    other = sqlite3.connect(tmp_path / "data" / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(store.add(job()))
    turns = 0
    while turns < 100:
        await asyncio.sleep(0)
        turns += 1
    assert not adding.done()
    other.execute("COMMIT")
    other.close()
    await adding
    assert (await store.counts())[QUEUED] == 1


async def test_a_store_is_private(store, tmp_path):
    """Prompts are in it: only its user may read the file, its journal and its folder."""
    await store.add(job())
    files = [Path(tmp_path / "data"), *(tmp_path / "data").iterdir()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
