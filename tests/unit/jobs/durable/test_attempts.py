"""An attempt that goes on although a later one has begun."""

import asyncio

from service.http.state import DURABLE
from tests.support.job_service import BODY, ask, service
from tests.support.simulation.fake_engine import FakeEngine


async def test_an_attempt_that_was_overtaken_ends_nothing_and_tells_nobody(tmp_path, monkeypatch):
    """The row stays with the later attempt, which delivers the webhook; watchers wait no more."""
    engine, told = FakeEngine(step_seconds=None), []
    async with asyncio.timeout(20), service(tmp_path, engine, webhook_hosts="localhost") as client:
        durable = client.app[DURABLE]
        monkeypatch.setattr(durable.webhooks, "deliver", lambda *args, **_more: told.append(args))
        body = BODY | {"webhook": "http://localhost:9/done"}
        job = (await ask(client, "POST", "/jobs", 202, json=body))["id"]
        await engine.jobs(1)
        async with client.get(f"/jobs/{job}/events") as watched:
            await watched.content.readline()
            assert await durable.store.begin(job, 2)
            await engine.step(2)
            await watched.text()
        found = await ask(client, "GET", f"/jobs/{job}", 200)
        assert (found["state"], told) == ("running", [])
        assert [(one.id, one.attempts) for one in await durable.store.unfinished()] == [(job, 2)]
