"""Any order of what can happen to jobs: none is lost, none changes once it is over."""

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.diffusion.generation import GenerationRequest
from service.engine.base import EngineState
from service.errors import (
    EngineCrashed,
    IdempotencyConflict,
    JobExpired,
    ModelUnavailable,
    NotFound,
    QueueFull,
    ShuttingDown,
)
from service.jobs.job import FINAL, Job, JobState
from service.jobs.stored import StoredJob
from tests.fuzz.world import KEYS, Receiver, World, collect, restore_time

ENDS = {state.value for state in FINAL}
REASONS = {
    "succeeded": {""},
    "failed": {
        *("engine_crashed", "generation_failed", "model_unavailable", "out_of_memory", "timeout"),
    },
    "cancelled": {"cancelled"},
}
"""Codes by the end; the end of a process is none."""

UNPAID = {"timeout", "cancelled"}
"""Codes of the ends that are paid for if the job was started."""

LOADING = (EngineState.LOADING, EngineState.RESTARTING)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a client asks for."""

    key: str
    prompt: str
    idempotency_key: str | None
    steps: int
    images: int
    seconds: float
    webhook: str | None


orders = st.builds(
    Order,
    key=st.sampled_from(KEYS),
    prompt=st.sampled_from(["a boat", "a cat"]),
    idempotency_key=st.sampled_from([None, None, "one", "two"]),
    steps=st.integers(1, 3),
    images=st.integers(1, 2),
    seconds=st.sampled_from([5.0, 50.0, 5000.0]),
    webhook=st.sampled_from([None, "https://example.org/told"]),
)


@dataclass
class Known:
    """What its client knows of a job."""

    id: str
    order: Order
    end: tuple[Any, ...] | None = None
    """State, code, time and attempts, once they were seen."""
    heard: list[Any] = field(default_factory=list)
    """Its events, of this process."""


class JobLifeCycle(RuleBasedStateMachine):
    """Clients, an engine that breaks, a clock, a receiver of webhooks, and a service that dies."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.receiver = Receiver()
        self.jobs: dict[str, Known] = {}
        self.charged: set[str] = set()
        """Jobs that were accepted, and so charged, by this process."""
        self.world = World(self.folder, self.receiver, 0.0)
        self.restored = 0
        self.first = True
        """Whether this is the first process, so that the charges are those of its jobs alone."""
        self._load()

    def teardown(self) -> None:
        """Let every job end and every webhook be heard; then all of it must add up."""
        try:
            if self.world.engine.state is EngineState.FAILED:
                self._again(graceful=True)
            self._load()
            self.receiver.listens = True
            for _ in range(60):
                self.world.loop.do(self.world.engine.step())
                if self.world.engine.state is not EngineState.READY:
                    self._load()
            self._everything_holds()
            left = [r for r in self.world.rows().values() if r["state"] not in ENDS]
            assert left == []
            self.world.loop.advance(900.0)
            rows = [r for r in self.world.rows().values() if r["expired_at"] is None]
            assert all(r["webhook_state"] in (None, "delivered", "failed") for r in rows)
            self.world.stop()
        finally:
            if not self.world.loop.is_closed():
                self.world.die()
            restore_time()
            shutil.rmtree(self.folder)

    def _load(self) -> None:
        if self.world.engine.state in LOADING:
            self.world.loop.call(self.world.engine.become_ready)

    def _again(self, *, graceful: bool) -> None:
        """End this process and start the next one."""
        if graceful:
            self.world.stop()
        else:
            self.world.die()
        self.first = False
        self.restored = self._to_be_restored()
        self.world = World(self.folder, self.receiver, self.world.loop.now)
        self.charged.clear()
        for known in self.jobs.values():
            known.heard = []

    def _to_be_restored(self) -> int:
        """Count what the next process will run; what ended too many processes it will not."""
        with closing(sqlite3.connect(self.folder / "jobs.sqlite")) as file:
            found = file.execute(
                "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND attempts < ?",
                (self.world.config.max_attempts,),
            )
            return int(found.fetchone()[0])

    # What clients do.

    def _made(self, order: Order) -> tuple[Job, StoredJob]:
        request = GenerationRequest(
            prompt=order.prompt, steps=order.steps, num_images=order.images, width=8, height=8
        )
        return self.world.order(
            order.key,
            request,
            idempotency_key=order.idempotency_key,
            idempotency_digest=order.prompt,
            deadline_at=self.world.wall + order.seconds,
            webhook=order.webhook,
        )

    @rule(order=orders)
    def accept(self, order: Order) -> None:
        """Hand a job in, as the door does."""
        self._accept(order)

    @rule(order=orders, more=orders)
    def accept_two(self, order: Order, more: Order) -> None:
        """Hand two in, that there be a queue."""
        self._accept(order)
        self._accept(more)

    def _accept(self, order: Order) -> None:
        world = self.world
        job, stored = self._made(order)
        before, depth = self._standing_for(order), world.consumer.depth
        accepting = world.loop.begin(world.accept(job, stored))
        world.loop.settle()
        match accepting.exception():
            case None if before is None:
                assert accepting.result().id == job.id
                assert world.consumer.depth <= max(depth, world.config.queue_size)
                self.jobs[job.id] = Known(job.id, order)
                self.charged.add(job.id)
                return
            case None:
                assert before is not None
                assert (accepting.result().id, before.order.prompt) == (before.id, order.prompt)
            case IdempotencyConflict():
                assert before is not None
                assert before.order.prompt != order.prompt
            case ModelUnavailable():
                assert world.engine.state is EngineState.FAILED
            case QueueFull() as full:
                assert depth > 0, "an empty queue refuses nobody"
                assert full.retry_after is not None
                assert full.retry_after >= 1
            case error:
                raise AssertionError(error)
        assert job.charge is None or job.charge.settled

    def _accept_and_die(self, order: Order, times: int) -> None:
        """Kill the service somewhere on the way; its client knows what it was told."""
        job, stored = self._made(order)
        answer = self.world.loop.begin(self.world.accept(job, stored))
        for _ in range(times):
            self.world.loop.once()
        told = answer.done() and answer.exception() is None and answer.result().id == job.id
        self._again(graceful=False)
        kept = job.id in self.world.rows()
        assert kept or not told, "it was accepted and is lost"
        if kept:
            self.jobs[job.id] = Known(job.id, order)

    def _standing_for(self, order: Order) -> Known | None:
        if order.idempotency_key is None:
            return None
        rows = self.world.rows()
        return next(
            (
                known
                for known in self.jobs.values()
                if (known.order.key, known.order.idempotency_key)
                == (order.key, order.idempotency_key)
                and known.id in rows
                and rows[known.id]["expired_at"] is None
            ),
            None,
        )

    def _one(self, data: st.DataObject) -> Known:
        return list(self.jobs.values())[data.draw(st.integers(0, len(self.jobs) - 1))]

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Its owner ends it; nobody else can."""
        known, book = self._one(data), self.world.durable.book
        other = next(key for key in KEYS if key != known.order.key)
        with pytest.raises(NotFound):
            self.world.loop.do(book.cancel(known.id, other))
        try:
            found = self.world.loop.do(book.cancel(known.id, known.order.key))
        except (JobExpired, NotFound):
            assert self._gone(known)
        else:
            assert found.final

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """See that a key sees its own jobs, all of them, and no others."""
        known, book, loop = self._one(data), self.world.durable.book, self.world.loop
        rows = self.world.rows()
        for key in KEYS:
            page = loop.do(book.page(key, state=None, cursor=None, limit=1000))
            mine = {i for i, r in rows.items() if r["key"] == key and r["expired_at"] is None}
            assert mine == {stored.id for stored in page.jobs}
        try:
            stored, entry = loop.do(book.get(known.id, known.order.key))
        except (JobExpired, NotFound):
            assert self._gone(known)
        else:
            assert (entry is None) == stored.final

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), seen=st.integers(0, 5))
    def watch(self, data: st.DataObject, seen: int) -> None:
        """Follow a job from some event on, through its events of this process."""
        known, book = self._one(data), self.world.durable.book
        if entry := book.entries.get(known.id):
            told: list[Any] = []
            whole: list[Any] = []
            first = self.world.loop.begin(collect(book.events(entry), whole))
            self.world.loop.settle()
            assert whole, "who watches is told at once where the job is"
            since = whole[min(seen, len(whole) - 1)]
            second = self.world.loop.begin(collect(book.events(entry, since.id), told))
            self.world.loop.settle()
            assert [e.number for e in told] == [e.number for e in whole if e.number > since.number]
            second.cancel()
            first.cancel()
            self.world.loop.settle()
            known.heard = []
            self.world.loop.begin(collect(book.events(entry), known.heard))
            self.world.loop.settle()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        """Try to begin, to requeue and to end what is over: of several ends one is told."""
        known, store = self._one(data), self.world.durable.store
        if known.end is not None:
            assert not self.world.loop.do(store.begin(known.id))
            assert not self.world.loop.do(store.requeue(known.id))
            assert not self.world.loop.do(store.finish(known.id, JobState.CANCELLED))

    # What the engine does.

    @precondition(lambda self: self.world.engine.batch)
    @rule(count=st.integers(1, 3))
    def step(self, count: int) -> None:
        """Denoise."""
        self.world.loop.do(self.world.engine.step(count))

    @precondition(lambda self: self.world.engine.batch)
    @rule()
    def finish_all(self) -> None:
        """Denoise until nothing is left to do."""
        while self.world.engine.batch:
            self.world.loop.do(self.world.engine.step())

    def _step_and_die(self, times: int) -> None:
        """Kill the service while it writes an end down, or before, or after."""
        self.world.loop.begin(self.world.engine.step())
        for _ in range(times):
            self.world.loop.once()
        self._again(graceful=False)

    @precondition(lambda self: self.world.engine.batch)
    @rule()
    def crash(self) -> None:
        """Lose the engine's process, and what it had in work."""
        self.world.loop.call(self.world.engine.crash)

    @precondition(lambda self: self.world.engine.state in LOADING)
    @rule()
    def load(self) -> None:
        """Have the model loaded."""
        self._load()

    @precondition(lambda self: self.world.engine.batch)
    @rule(memory=st.booleans())
    def fail(self, *, memory: bool) -> None:
        """End the batch with an error."""
        if memory:
            self.world.loop.call(self.world.engine.run_out_of_memory)
        else:
            self.world.loop.call(self.world.engine.fail)

    # What the world does.

    @rule(seconds=st.sampled_from([1.0, 10.0, 1001.0, 4700.0, 20_000.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass: deadlines, sweeps, deliveries."""
        self.world.loop.advance(seconds)

    @rule()
    def toggle_receiver(self) -> None:
        """Let the receiver of webhooks fall asleep, or wake it."""
        self.receiver.listens = not self.receiver.listens

    @precondition(lambda self: self.jobs)
    @rule(
        how=st.sampled_from(["stop", "kill", "drain", "accept", "step", "step", "no model"]),
        order=orders,
        times=st.integers(0, 12),
        loads=st.booleans(),
    )
    def end_the_process(self, how: str, order: Order, times: int, *, loads: bool) -> None:
        """End it somehow, and start another one on the same folder."""
        match how:
            case "accept":
                self._accept_and_die(order, times)
            case "step":
                self._step_and_die(times)
            case "drain":
                self._drain(order)
            case "no model" if self.world.engine.state in LOADING:
                self.world.loop.call(self.world.engine.fail_to_load)
                self._everything_holds()
                self._accept(order)
                self._again(graceful=True)
            case _:
                self._again(graceful=how == "stop")
        if loads:
            self._load()

    def _drain(self, order: Order) -> None:
        """Refuse new work until the end, which then comes."""
        self.world.loop.call(self.world.consumer.drain)
        job, stored = self._made(replace(order, idempotency_key=None))
        with pytest.raises(ShuttingDown):
            self.world.loop.do(self.world.accept(job, stored))
        self.world.loop.do(self.world.engine.step())
        self._again(graceful=True)

    # What always holds.

    def _gone(self, known: Known) -> bool:
        row = self.world.rows().get(known.id)
        return row is None or row["expired_at"] is not None

    @invariant()
    def everything_holds(self) -> None:
        """Look at all of it after each step."""
        self._everything_holds()

    def _everything_holds(self) -> None:
        self.world.loop.settle()
        rows = self.world.rows()
        self._rows_are_jobs(rows)
        self._memory_is_as_the_disk(rows)
        self._ends_are_final(rows)
        if self.first:
            self._charges_add_up()
        self._counters_add_up(rows)
        self._receivers_hear_the_truth(rows)

    def _rows_are_jobs(self, rows: dict[str, Any]) -> None:
        assert set(rows) <= set(self.jobs), "a job that nobody handed in"
        for known in self.jobs.values():
            if known.id not in rows:
                assert known.end is not None, f"{known} is lost"  # Forgotten after its time.
                continue
            row = rows[known.id]
            assert row["state"] in set(JobState)
            assert row["key"] == known.order.key
            assert row["attempts"] <= self.world.config.max_attempts
        used = [
            (row["key"], row["idempotency_key"]) for row in rows.values() if row["idempotency_key"]
        ]
        assert len(used) == len(set(used))

    def _memory_is_as_the_disk(self, rows: dict[str, Any]) -> None:
        world = self.world
        entries = world.durable.book.entries
        live = {i for i, row in rows.items() if row["state"] not in ENDS}
        assert set(entries) == live
        for job_id in live:
            assert entries[job_id].job.state.value == rows[job_id]["state"]
            assert entries[job_id].job.attempts == rows[job_id]["attempts"]
            deadline = rows[job_id]["deadline_at"]
            assert deadline is None or deadline > world.wall
        assert world.consumer.depth + world.consumer.running == len(live)
        assert set(world.consumer._batch.jobs) == set(world.engine.batch)
        running = list(world.engine.batch.values())
        most = world.config.max_concurrent_requests
        assert sum(r.num_images for r in running[:-1]) < most
        if world.engine.state is EngineState.READY and world.consumer.depth:
            assert world.consumer.running, "the engine stands idle beside a queue"

    def _ends_are_final(self, rows: dict[str, Any]) -> None:
        results, loop, book = self.world.durable.results, self.world.loop, self.world.durable.book
        kept = {path.stem for path in results.folder.iterdir()}
        assert all(path.suffix == ".zip" for path in results.folder.iterdir())
        for job_id, row in rows.items():
            known = self.jobs[job_id]
            if row["state"] not in ENDS:
                assert known.end is None, "it was over"
                assert not any(event.last for event in known.heard)
                continue
            end = (row["state"], row["error_code"], row["finished_at"], row["attempts"])
            known.end = known.end or end
            assert known.end == end
            assert row["error_code"] in REASONS[row["state"]]
            if row["error_code"] == EngineCrashed.code:
                assert row["attempts"] == self.world.config.max_attempts
            if known.heard:
                numbers = [event.number for event in known.heard]
                assert numbers == sorted(set(numbers))
                assert [event.last for event in known.heard].count(True) == 1
                assert known.heard[-1].last
            if row["expired_at"] is not None:
                with pytest.raises(JobExpired):
                    loop.do(book.get(job_id, known.order.key))
                assert job_id not in kept
            elif row["state"] == JobState.SUCCEEDED.value:
                stored, _ = loop.do(book.get(job_id, known.order.key))
                for index in range(known.order.images):
                    assert loop.do(book.picture(stored, index)).data.startswith(b"\x89PNG")
                kept.discard(job_id)
        young = {i for i in kept if i in rows and rows[i]["state"] not in ENDS}
        assert kept == young, "pictures of nobody"

    def _charges_add_up(self) -> None:
        for key in KEYS:
            expected = 0
            for known in self.jobs.values():
                if known.order.key == key and known.id in self.charged:
                    state, code, _, attempts = known.end or ("", "", 0.0, 0)
                    worked = code in UNPAID and attempts > 0
                    paid = state in ("", "succeeded") or worked
                    expected += known.order.images if paid else 0
            assert self.world.charged(key) == expected

    def _counters_add_up(self, rows: dict[str, Any]) -> None:
        world = self.world
        live = sum(row["state"] not in ENDS for row in rows.values())
        metrics = world.metrics
        accepted = world.total(metrics.accepted)
        assert accepted == len(self.charged) + self.restored
        assert accepted == world.total(metrics.jobs) + live
        assert world.total(metrics.queue_depth) == world.consumer.depth
        assert world.total(metrics.jobs_running) == world.consumer.running

    def _receivers_hear_the_truth(self, rows: dict[str, Any]) -> None:
        for delivery, body in self.receiver.heard:
            said = json.loads(body)
            known = self.jobs[said["id"]]
            assert delivery == f"{known.id}-ended"
            assert known.end is not None
            assert said["state"] == known.end[0]
        self.receiver.heard.clear()


def test_no_order_of_events_loses_a_job_or_changes_an_end(fuzz_cases, fuzz_seed):
    """Whatever clients, engine, clock, disk and receivers do, in any order."""
    run_state_machine_as_test(
        seed(fuzz_seed)(JobLifeCycle),
        settings=settings(
            max_examples=max(1, fuzz_cases // 40),
            stateful_step_count=40,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
