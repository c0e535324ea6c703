"""Event streams of jobs of which nothing is to be told for a while."""

import asyncio
from types import SimpleNamespace

from service.http import event_stream
from tests.support.job_service import BODY, ask, service
from tests.support.simulation.fake_engine import FakeEngine


async def test_a_silent_stream_shows_every_15_seconds_that_it_lives(tmp_path, monkeypatch):
    """By a comment, which clients pass over and proxies take for traffic; then it goes on."""
    asked, wait = [], asyncio.wait

    async def impatient(tasks, **more):
        asked.append(more["timeout"])
        return await wait(tasks, **more | {"timeout": 0.01})

    patched = SimpleNamespace(**vars(asyncio) | {"wait": impatient})
    monkeypatch.setattr(event_stream, "asyncio", patched)
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await engine.jobs(1)
        async with asyncio.timeout(20), client.get(f"/jobs/{job}/events") as answer:
            async for line in answer.content:
                if line.startswith(b":"):
                    break
            assert line == b": still there\n"
            await engine.step(2)
            assert b"event: finished" in await answer.content.read()
    assert set(asked) == {15.0}
