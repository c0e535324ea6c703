"""Rules of the clients: they order, wait, hang up, look, watch and cancel."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from service.engine.base import EngineState
from service.errors import (
    EngineUnavailable,
    IdempotencyConflict,
    JobExpired,
    ModelUnavailable,
    NotFound,
    QueueFull,
    ServiceError,
)
from service.jobs.durable.live_job import Durability
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd
from tests.fuzz.job_life import Client, JobLife, Known, Order, orders
from tests.fuzz.world import KEYS, collect


class ClientRules(JobLife):
    """What clients do."""

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
        before, depth = self._standing_for(order), world.dispatcher.depth
        world.charges.clear()
        accepting = world.loop.begin(self._submit(order))
        world.loop.settle()
        match accepting.exception():
            case None if before is None:
                handle = accepting.result()
                assert not handle.replayed
                assert world.dispatcher.depth <= max(depth, world.config.queue_size)
                self.jobs[handle.stored.id] = Known(handle.stored.id, order)
                self.charged.add(handle.stored.id)
                return
            case None:
                assert before is not None
                assert accepting.result().replayed
                found = accepting.result().stored
                assert (found.id, before.order.prompt) == (before.id, order.prompt)
            case IdempotencyConflict():
                assert before is not None
                assert before.order.prompt != order.prompt
            case ModelUnavailable():
                failed = bool(world.dispatcher.lead.residency.failure(order.model))
                assert failed or world.engine.state is EngineState.FAILED
            case EngineUnavailable():
                assert world.dispatcher.lead.circuit.open
            case QueueFull() as full:
                assert depth > 0, "an empty queue refuses nobody"
                assert full.retry_after is not None
                assert full.retry_after >= 1
            case error:
                raise AssertionError(error)
        assert all(charge.settled for charge in world.charges)

    async def _wait(self, client: Client) -> ServiceError | None:
        """Wait as a client does, and return the error that it gets."""
        order = replace(client.order, idempotency_key=None, webhook=None)
        try:
            with await self._submit(order, Durability.NONE) as client.handle:
                await client.handle.wait()
        except ServiceError as error:
            return error
        return None

    @rule(order=orders)
    def ask(self, order: Order) -> None:
        """Wait for an image, of which nothing is kept."""
        client = Client(order)
        client.waiting = self.world.loop.begin(self._wait(client))
        self.world.loop.settle()
        if client.handle is None:
            error = client.waiting.result()
            opened = self.world.dispatcher.lead.circuit.open
            assert isinstance(
                error, ModelUnavailable | (EngineUnavailable if opened else QueueFull)
            )
        else:
            self.clients.append(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        """Leave: the job ends at once, if it was not over."""
        client = self.clients[data.draw(st.integers(0, len(self.clients) - 1))]
        assert client.waiting is not None
        client.waiting.cancel()
        self.world.loop.settle()
        assert client.job.final

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
        known, jobs = self._one(data), self.world.durable.jobs
        other = next(key for key in KEYS if key != known.order.key)
        with pytest.raises(NotFound):
            self.world.loop.do(jobs.cancel(known.id, other))
        try:
            found = self.world.loop.do(jobs.cancel(known.id, known.order.key))
        except (JobExpired, NotFound):
            assert self._gone(known)
        else:
            assert found.final

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """See that a key sees its own jobs, all of them, and no others."""
        known, jobs, loop = self._one(data), self.world.durable.jobs, self.world.loop
        rows = self.world.rows()
        for key in KEYS:
            page = loop.do(jobs.page(key, state=None, cursor=None, limit=1000))
            mine = {i for i, r in rows.items() if r["key"] == key and r["expired_at"] is None}
            assert mine == {stored.id for stored in page.jobs}
        try:
            stored, live = loop.do(jobs.get(known.id, known.order.key))
        except (JobExpired, NotFound):
            assert self._gone(known)
        else:
            assert (live is None) == stored.final

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), seen=st.integers(0, 5))
    def watch(self, data: st.DataObject, seen: int) -> None:
        """Follow a job from some event on, through its events of this process."""
        known, jobs = self._one(data), self.world.durable.jobs
        if live := jobs.live.get(known.id):
            told: list[Any] = []
            whole: list[Any] = []
            first = self.world.loop.begin(collect(jobs.events(live), whole))
            self.world.loop.settle()
            assert whole, "who watches is told at once where the job is"
            since = whole[min(seen, len(whole) - 1)]
            second = self.world.loop.begin(collect(jobs.events(live, since.id), told))
            self.world.loop.settle()
            assert [e.number for e in told] == [e.number for e in whole if e.number > since.number]
            second.cancel()
            first.cancel()
            self.world.loop.settle()
            known.heard = []
            self.world.loop.begin(collect(jobs.events(live), known.heard))
            self.world.loop.settle()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        """Try to begin, to requeue and to end what is over: of several ends one is told."""
        known, store = self._one(data), self.world.durable.store
        if known.end is not None:
            assert not self.world.loop.do(store.begin(known.id, 999))
            assert not self.world.loop.do(store.requeue(known.id, 999))
            assert not self.world.loop.do(store.finish(known.id, JobEnd(state=JobState.CANCELLED)))
