"""Any order of what can happen to jobs: none is lost, none changes once it is over."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from service.errors import ShuttingDown
from tests.fuzz.client_rules import ClientRules
from tests.fuzz.job_life import LOADING, Known, Order, orders


class JobLifeCycle(ClientRules):
    """Clients, an engine that breaks, a clock, a receiver of webhooks, and a service that dies."""

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

    @precondition(lambda self: self.world.engine.batch or self.world.engine.held.wanted)
    @rule()
    def crash(self) -> None:
        """Lose the engine's process, and what it had in work."""
        self.world.loop.call(self.world.engine.crash)

    @precondition(lambda self: self.world.engine.state in LOADING)
    @rule()
    def load(self) -> None:
        """Have the model loaded."""
        self._load()

    @precondition(lambda self: self.world.engine.held.device and not self.world.engine.batch)
    @rule()
    def evict(self) -> None:
        """Lose a model, and say so only when a job for it comes."""
        self.world.engine.held.device.popitem()

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

    def _accept_and_die(self, order: Order, times: int) -> None:
        """Kill the service somewhere on the way; its client knows what it was told."""
        before = set(self.world.rows())
        answer = self.world.loop.begin(self._submit(order))
        for _ in range(times):
            self.world.loop.once()
        told = answer.done() and answer.exception() is None and not answer.result().replayed
        self._again(graceful=False)
        kept = set(self.world.rows()) - before
        assert len(kept) <= 1
        assert not told or kept == {answer.result().stored.id}, "it was accepted and is lost"
        self.jobs |= {job_id: Known(job_id, order) for job_id in kept}

    def _step_and_die(self, times: int) -> None:
        """Kill the service while it writes an end down, or before, or after."""
        self.world.loop.begin(self.world.engine.step())
        for _ in range(times):
            self.world.loop.once()
        self._again(graceful=False)

    def _drain(self, order: Order) -> None:
        """Refuse new work until the end, which then comes."""
        self.world.loop.call(self.world.dispatcher.drain)
        with pytest.raises(ShuttingDown):
            self.world.loop.do(self._submit(replace(order, idempotency_key=None)))
        self.world.loop.do(self.world.engine.step())
        self._again(graceful=True)


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
