"""One service, its jobs and what must always hold of them, whatever happens in which order."""

import asyncio
import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from service.core.spec import GenerationSpec
from service.engine.base import EngineState
from service.errors import EngineCrashed, JobExpired, ServiceError
from service.jobs.durable.live_job import Durability
from service.jobs.job import FINAL, Job, JobState
from service.jobs.service import JobHandle
from tests.fuzz.world import KEYS, OTHER, Receiver, World, restore_time

ENDS = {state.value for state in FINAL}
REASONS = {
    "succeeded": {""},
    "failed": {
        *("engine_crashed", "generation_failed", "model_unavailable", "out_of_memory", "timeout"),
    },
    "cancelled": {"cancelled"},
}
"""Codes by the end; the end of a process is none."""

UNPAID = {"timeout", "cancelled", "disconnected"}
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
    model: str = ""


orders = st.builds(
    Order,
    key=st.sampled_from(KEYS),
    prompt=st.sampled_from(["a boat", "a cat"]),
    idempotency_key=st.sampled_from([None, None, "one", "two"]),
    steps=st.integers(1, 3),
    images=st.integers(1, 2),
    seconds=st.sampled_from([5.0, 50.0, 5000.0]),
    webhook=st.sampled_from([None, "https://example.org/told"]),
    model=st.sampled_from(["", "", OTHER]),
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


@dataclass
class Client:
    """Who waits for a job of which nothing is kept."""

    order: Order
    handle: JobHandle | None = None
    waiting: "asyncio.Task[ServiceError | None] | None" = None
    """Its result is the error that the client gets, if it gets one."""

    @property
    def job(self) -> Job:
        assert self.handle is not None
        assert self.handle.live is not None
        return self.handle.live.job


class JobLife(RuleBasedStateMachine):
    """A service over an engine that breaks, its clients, and a receiver of webhooks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.receiver = Receiver()
        self.jobs: dict[str, Known] = {}
        self.clients: list[Client] = []
        """Who waits, or has waited, in this process."""
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
                self.world.loop.advance(1.0)
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
        self.restored = self._unfinished()
        self.world = World(self.folder, self.receiver, self.world.loop.now)
        self.charged.clear()
        self.clients.clear()
        for known in self.jobs.values():
            known.heard = []

    def _unfinished(self) -> int:
        """Count what the next process takes up: it runs them, or gives them up at once."""
        with closing(sqlite3.connect(self.folder / "jobs.sqlite")) as file:
            found = file.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')")
            return int(found.fetchone()[0])

    async def _submit(
        self, order: Order, durability: Durability = Durability.PROMISED
    ) -> JobHandle:
        spec = GenerationSpec(
            prompt=order.prompt,
            steps=order.steps,
            num_images=order.images,
            width=64,
            height=64,
            model=order.model,
        )
        return await self.world.submit(
            spec,
            order.key,
            durability,
            idempotency_key=order.idempotency_key,
            idempotency_digest=order.prompt,
            timeout_seconds=order.seconds,
            webhook=order.webhook,
        )

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
        self._clients_hear_the_truth()
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
        known = world.durable.jobs.live
        live = {i for i, row in rows.items() if row["state"] not in ENDS}
        assert {job_id for job_id, one in known.items() if one.durable} == live
        mine = {client.job.id for client in self.clients if not client.job.final}
        assert {job_id for job_id, one in known.items() if not one.durable} == mine
        for job_id in live:
            assert known[job_id].job.state.value == rows[job_id]["state"]
            assert known[job_id].job.attempts == rows[job_id]["attempts"]
            assert known[job_id].job.epoch == rows[job_id]["epoch"] >= rows[job_id]["attempts"]
            deadline = rows[job_id]["deadline_at"]
            assert deadline is None or deadline > world.wall
        assert world.dispatcher.depth + world.dispatcher.running == len(live) + len(mine)
        assert set(world.dispatcher.lead.jobs) == set(world.engine.batch)
        running = list(world.engine.batch.values())
        most = world.config.max_concurrent_requests
        assert sum(r.num_images for r in running[:-1]) < most
        if world.engine.state is EngineState.READY and world.dispatcher.depth:
            loaded = world.dispatcher.lead.residency.loaded
            waits = [one.job for one in known.values() if one.job.state is JobState.QUEUED]
            idle = not world.dispatcher.running and any(job.model in loaded for job in waits)
            assert not idle, "the engine stands idle beside a queue"

    def _ends_are_final(self, rows: dict[str, Any]) -> None:
        results, loop, jobs = self.world.durable.results, self.world.loop, self.world.durable.jobs
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
                    loop.do(jobs.get(job_id, known.order.key))
                assert job_id not in kept
            elif row["state"] == JobState.SUCCEEDED.value:
                stored, _ = loop.do(jobs.get(job_id, known.order.key))
                for index in range(known.order.images):
                    assert loop.do(jobs.image(stored, index)).data.startswith(b"\x89PNG")
                kept.discard(job_id)
        young = {i for i in kept if i in rows and rows[i]["state"] not in ENDS}
        assert kept == young, "images of nobody"

    def _charges_add_up(self) -> None:
        for key in KEYS:
            expected = 0
            for known in self.jobs.values():
                if known.order.key == key and known.id in self.charged:
                    state, code, _, attempts = known.end or ("", "", 0.0, 0)
                    worked = code in UNPAID and attempts > 0
                    paid = state in ("", "succeeded") or worked
                    expected += known.order.images if paid else 0
            for client in self.clients:
                if client.order.key == key:
                    error = client.job.error
                    worked = error is not None and error.code in UNPAID and client.job.attempts > 0
                    expected += client.order.images if error is None or worked else 0
            assert self.world.charged(key) == expected

    def _counters_add_up(self, rows: dict[str, Any]) -> None:
        world = self.world
        live = sum(row["state"] not in ENDS for row in rows.values())
        metrics = world.metrics
        accepted = world.total(metrics.accepted)
        assert accepted == len(self.charged) + self.restored + len(self.clients)
        live += sum(not client.job.final for client in self.clients)
        assert accepted == world.total(metrics.jobs) + live
        assert world.total(metrics.queue_depth) == world.dispatcher.depth
        assert world.total(metrics.engine("0").jobs_running) == world.dispatcher.running

    def _clients_hear_the_truth(self) -> None:
        for client in self.clients:
            assert client.waiting is not None
            if client.job.final and not client.waiting.cancelled():
                error, told = client.job.error, client.waiting.result()
                assert (told and told.code) == (error and error.code)

    def _receivers_hear_the_truth(self, rows: dict[str, Any]) -> None:
        for delivery, body in self.receiver.heard:
            said = json.loads(body)
            known = self.jobs[said["id"]]
            assert delivery == f"{known.id}-ended"
            assert known.end is not None
            assert said["state"] == known.end[0]
        self.receiver.heard.clear()
