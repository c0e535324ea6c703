"""Jobs for several models on one engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.config.table import Config
from service.core.capacity import Capacity
from service.core.events import ModelFailed, ModelLoading
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.errors import ModelNotFound, ModelUnavailable, OutOfMemory
from service.jobs.dispatch import residency
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from service.jobs.queue.estimate import LOAD_SECONDS
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, accepted, kept, over
from tests.support.jobs.scripted_engine import value
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine
from tests.support.simulation.fake_models import FakeModel, catalog_with
from tests.support.simulation.models import PLANS, bound, drawn_with, tried
from tests.support.simulation.simulate import request, simulated

B = FakeModel(info=replace(FAKE_MODEL, model_id="b", version="b-1"), load_seconds=None)
BROKEN = replace(B, error="No UNet.")

Serving = tuple[Dispatcher, FakeEngine]


def job(model: str = "", **fields: Any) -> Job:
    spec = GenerationSpec(prompt="a boat", width=256, height=256, steps=2, model=model)
    return Job(request=replace(spec, **fields))


@asynccontextmanager
async def serving(
    metrics: Metrics, *, room: int = 2, model: FakeModel = B, **settings: Any
) -> AsyncIterator[Serving]:
    engine = FakeEngine(step_seconds=None, models={"b": model}, room=room)
    config = replace(Config(max_concurrent_requests=2), **settings)
    dispatcher = Dispatcher([engine], metrics, config, models=catalog_with("b"))
    await dispatcher.start()
    try:
        yield dispatcher, engine
    finally:
        await dispatcher.stop()


async def until(true: Callable[[], bool]) -> None:
    """Let the tasks have their turns until something holds."""
    for _ in range(100):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come true")


async def test_the_batch_goes_on_while_another_model_loads(metrics):
    """Jobs of the loaded model go before the one that waits, and then all run together."""
    async with serving(metrics) as (dispatcher, engine):
        first, other, later = job(), job("b"), job()
        for each in (first, other, later):
            dispatcher.submit(each)
        await engine.jobs(2)
        assert set(engine.batch) == {first.id, later.id}
        assert (engine.held.wanted, dispatcher.admission.ready) == (["b"], True)
        await engine.step(2)
        assert (first.state, later.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
        last = job()
        dispatcher.submit(last)
        await engine.jobs(1)
        engine.held.finish()
        await engine.jobs(2)
        await engine.step(2)
        assert (await other.wait(), other.model_version) == (other.result, "b-1")
        assert other.model_facts["model"] == "b"
        assert value(metrics, "sd_model_loads_total", model_id="b", outcome="disk") == 1
        assert value(metrics, "sd_model_wait_seconds_count", model_id="b") == 1
        assert value(metrics, "sd_model_wait_seconds_count", model_id="demo") == 0
        assert value(metrics, "sd_model_resident_bytes", model_id="b", place="host") == 1
        assert value(metrics, "sd_model_resident_bytes", model_id="b", place="gpu") == 0


async def test_nothing_starts_that_would_keep_a_model_from_loading(metrics, monkeypatch):
    """The jobs in its way run out; then it comes, and the other one comes back after it."""
    monkeypatch.setattr(residency, "PATIENCE", 0.0)
    async with serving(metrics, room=1) as (dispatcher, engine):
        first, other, later = job(), job("b"), job()
        dispatcher.submit(first)
        await engine.jobs(1)
        dispatcher.submit(other)
        dispatcher.submit(later)
        await engine.step()
        assert set(engine.batch) == {first.id}
        await engine.step()
        assert list(engine.held.device) == []
        engine.held.finish()
        assert list(await engine.jobs(1)) == [other.id]
        await engine.step(2)
        await until(lambda: list(engine.batch) == [later.id])
        assert list(engine.held.device) == [""]
        assert value(metrics, "sd_model_loads_total", model_id="demo", outcome="disk") == 1


async def test_a_job_whose_model_just_left_waits_again_for_free(metrics):
    """The engine did no work on it, and it loses no attempt."""
    async with serving(metrics, model=replace(B, load_seconds=0.0)) as (dispatcher, engine):
        first, second = job("b"), job("b")
        dispatcher.submit(first)
        await engine.jobs(1)
        await engine.step(2)
        del engine.held.device["b"]
        dispatcher.submit(second)
        await engine.jobs(1)
        await engine.step(2)
        assert (second.state, second.attempts, second.epoch) == (JobState.SUCCEEDED, 1, 2)


async def test_a_model_that_cannot_be_loaded_fails_its_own_jobs_only(metrics):
    """They say why, and new ones are refused for a while; the others go on."""
    async with serving(metrics, model=BROKEN) as (dispatcher, engine):
        mine, other = job(), job("b")
        dispatcher.submit(other)
        dispatcher.submit(mine)
        engine.held.finish()
        with pytest.raises(ModelUnavailable, match=r"The model b: No UNet\."):
            await other.wait()
        with pytest.raises(ModelUnavailable, match=r"The model b cannot be used: No UNet\."):
            dispatcher.submit(job("b"))
        await engine.step(2)
        assert mine.state is JobState.SUCCEEDED
        assert value(metrics, "sd_model_loads_total", model_id="b", outcome="failed") == 1
        assert value(metrics, "sd_requests_refused_total", reason="model_unavailable") == 1


async def test_a_load_that_failed_for_a_while_is_tried_again(metrics, monkeypatch):
    """Its jobs wait meanwhile."""
    monkeypatch.setattr(residency, "RETRY_SECONDS", 0.0)
    async with serving(metrics) as (dispatcher, engine):
        other = job("b")
        dispatcher.submit(other)
        engine.held.forget()
        engine.held.begin()
        failed = ModelFailed(model_id="b", code="gpu_busy", detail="Others.", transient=True)
        dispatcher._on_event(dispatcher.lead, failed)
        await until(lambda: engine.held.wanted == ["b"])
        engine.held.finish()
        await engine.jobs(1)
        assert other.state is JobState.RUNNING


async def test_a_load_that_has_no_room_after_all_starts_nothing_until_it_has(metrics):
    """The jobs in its way run out, and no others come."""
    async with serving(metrics) as (dispatcher, engine):
        dispatcher.submit(job("b"))
        await until(lambda: engine.held.wanted == ["b"])
        dispatcher._on_event(dispatcher.lead, ModelLoading(model_id="b"))
        assert dispatcher.lead.has_room
        dispatcher._on_event(dispatcher.lead, ModelLoading(model_id="b", room=False))
        mine = job()
        dispatcher.submit(mine)
        assert (dispatcher.lead.has_room, mine.state) == (False, JobState.QUEUED)
        dispatcher._on_event(dispatcher.lead, ModelLoading(model_id="b"))
        await engine.jobs(1)
        assert mine.state is JobState.RUNNING


async def test_jobs_outlive_an_engine_that_is_killed_while_a_model_loads(metrics):
    """Those that ran and those that waited for the model; both are run by the next one."""
    async with serving(metrics) as (dispatcher, engine):
        first, other = job(), job("b")
        dispatcher.submit(first)
        dispatcher.submit(other)
        await engine.jobs(1)
        engine.crash()
        await engine.jobs(1)
        assert engine.held.wanted == ["b"]
        engine.held.finish()
        await engine.jobs(2)
        await engine.step(2)
        assert (first.attempts, other.attempts) == (2, 1)
        assert {first.state, other.state} == {JobState.SUCCEEDED}


async def test_a_model_that_ends_every_engine_that_reads_it_is_given_up(metrics):
    """Its jobs fail after as many tries as a job has, and the engine is there for others."""
    async with serving(metrics, max_attempts=2) as (dispatcher, engine):
        other = job("b")
        dispatcher.submit(other)
        for _ in range(2):
            await until(lambda: engine.held.wanted == ["b"])
            engine.crash()
        with pytest.raises(ModelUnavailable, match="ended each time that it loaded the model"):
            await other.wait()
        mine = job()
        dispatcher.submit(mine)
        await engine.jobs(1)


async def test_the_memory_check_is_that_of_the_model(metrics):
    """What fits next to one model does not next to a larger one."""
    async with serving(metrics) as (dispatcher, _):
        small = Capacity(available=0, needs={Stage.DENOISE: (1.0, 1.0)}, model_id="b")
        dispatcher._on_event(dispatcher.lead, small)
        with pytest.raises(OutOfMemory):
            dispatcher.submit(job("b"))
        dispatcher.submit(job())
        assert dispatcher.admission.ready


async def test_where_a_job_stands_counts_the_load_of_its_model(metrics):
    """By the guess before the first load."""
    async with serving(metrics) as (dispatcher, _):
        other = job("b")
        dispatcher.submit(other)
        position = dispatcher.position(other)
        assert position is not None
        assert position.start_seconds == pytest.approx(LOAD_SECONDS, rel=0.1)


@pytest.mark.parametrize(("model", "code"), [("b", ""), ("gone", ModelNotFound.code)])
async def test_after_a_restart_jobs_go_on_if_their_model_is_there(tmp_path, model, code):
    """Without it they end: they are never drawn with another one."""
    engine = FakeEngine(models={model: B}, room=2)
    before = Dispatcher([engine], Metrics(), Config(), models=catalog_with(model))
    folder = kept(tmp_path, before)
    async with folder.opened():
        await before.start()
        other = await accepted(folder, replace(REQUEST, model=model))
        await before.stop()
    engine = FakeEngine(models={"b": replace(B, load_seconds=0.0)}, room=2)
    after = Dispatcher([engine], Metrics(), Config(), models=catalog_with("b"))
    folder = kept(tmp_path, after)
    async with folder.opened():
        await after.start()
        ended = await over(folder, other.id)
        assert (ended.error_code, ended.request.model) == (code, model)
        await after.stop()


def test_a_model_that_nobody_uses_is_unloaded():
    """The default one, too; the service stays ready, and it comes back for the next job."""
    models = {"": replace(B, load_seconds=3.0), "b": replace(B, load_seconds=3.0)}
    seen: list[tuple[set[str], bool]] = []
    with simulated(["me"], models=models, room=2, idle=60.0) as run:
        (slot,) = run.dispatcher.slots

        def look() -> None:
            seen.append(({*slot.residency.loaded}, run.dispatcher.admission.ready))

        async def twice() -> None:
            await run.draws("me", [replace(request(4), model="b")])
            look()
            await asyncio.sleep(59.0)
            look()
            await asyncio.sleep(2.0)
            look()
            await run.draws("me", [request(4)])
            look()

        run.run([twice()], seconds=100.0)
    assert seen == [({"", "b"}, True), ({"b"}, True), (set(), True), ({""}, True)]


@pytest.mark.parametrize("title", PLANS)
def test_a_job_waits_for_its_model_within_the_bound(title):
    """Whatever the clients do, and nothing is lost; docs/decisions/012 has an hour of each."""
    plan = PLANS[title]
    found = tried(plan, seconds=400.0)
    assert found.switches > 2
    assert found.model_wait <= bound(1 + len(plan[1]))


def test_models_that_fit_cost_one_load_each():
    """Both stay, and nobody waits for a switch again."""
    _, _, requests = PLANS["2 clients for each of two models"]
    found = tried((4, ("b",), requests), room=2, seconds=400.0)
    assert found.switches == 1
    assert max(found.waits[20:]) < 5


def test_requests_name_models_in_turns():
    """The plans of the simulation are what they say."""
    made = drawn_with("", "b")
    assert [next(made).model for _ in range(3)] == ["", "b", ""]
