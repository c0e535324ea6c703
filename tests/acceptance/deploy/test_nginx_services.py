"""docker-compose.nginx.yml's configuration in front of live services: several, one, and none."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack

from service.config.credentials import Keys
from tests.disasters.conftest import light_service
from tests.support.deploy.nginx import needs_nginx, nginx
from tests.support.deploy.proxied import PATIENCE, PROBLEM, client_of, posted, two, until_waiting
from tests.support.job_service import BODY, service
from tests.support.simulation.fake_engine import FakeEngine

pytestmark = needs_nginx


async def test_a_full_service_hands_over_to_the_other(tmp_path):
    """A request is refused when both are full, with the Retry-After of the service."""
    engines = [FakeEngine(step_seconds=None) for _ in range(2)]
    places = 2  # One in work and one in line.
    settings = {"queue_size": 1, "max_concurrent_requests": 1}
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        direct = [
            await stack.enter_async_context(service(tmp_path / f"{number}", engine, **settings))
            for number, engine in enumerate(engines)
        ]
        ports = [each.server.port for each in direct]
        client = await stack.enter_async_context(
            client_of(await stack.enter_async_context(nginx(ports)))
        )
        full = [asyncio.create_task(direct[0].post("/generate", json=BODY)) for _ in range(places)]
        await until_waiting(direct[0])
        passed_on = [asyncio.create_task(posted(client)) for _ in range(places)]
        await until_waiting(direct[1])
        status, headers, problem = await posted(client)
        assert (status, problem["code"]) == (503, "queue_full")
        assert int(headers["Retry-After"]) >= 1
        while not all(task.done() for task in (*full, *passed_on)):
            await asyncio.gather(*(engine.step() for engine in engines))
        assert [task.result().status for task in full] == [200] * places
        assert [task.result()[0] for task in passed_on] == [200] * places


async def test_one_service_alone(tmp_path):
    """The usual installation: what it says of being full comes through, and its end is told."""
    engine = FakeEngine(step_seconds=None)
    settings = {"queue_size": 1, "max_concurrent_requests": 1}
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        behind = await stack.enter_async_context(service(tmp_path, engine, **settings))
        proxy = await stack.enter_async_context(nginx([behind.server.port]))
        client = await stack.enter_async_context(client_of(proxy))
        full = [asyncio.create_task(posted(client)) for _ in range(2)]
        await until_waiting(behind)
        for _ in range(2):  # Nor is it left out after the first time.
            status, headers, problem = await posted(client)
            assert (status, problem["code"]) == (503, "queue_full")
            assert int(headers["Retry-After"]) >= 1
        while not all(task.done() for task in full):
            await engine.step()
        assert [task.result()[0] for task in full] == [200, 200]
        await behind.close()
        status, headers, problem = await posted(client)
        assert (status, problem["code"], headers["Retry-After"]) == (502, "bad_gateway", "5")


async def test_a_service_that_does_not_answer_in_time(tmp_path):
    """504 in the one shape of errors; the work ends, and is not begun anew by the other."""
    engines = [FakeEngine(step_seconds=None) for _ in range(2)]
    async with two(tmp_path, *engines, changed={"ANSWER_SECONDS": "1"}) as (_, client):
        status, headers, problem = await posted(client)
        assert (status, problem["code"]) == (504, "gateway_timeout")
        assert (headers["Content-Type"], headers["Retry-After"]) == (PROBLEM, "5")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(engine.jobs(0) for engine in engines))
        assert sum(len(engine.cancelled) for engine in engines) == 1


async def test_a_callers_jobs_are_found_again(tmp_path):
    """Every job of a key is at the service that accepted it, also those of /generate."""
    # Twenty: with eight, all went to one service in one run of 128.
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(20)]
    named = ",".join(f"key{number}:{secret}" for number, secret in enumerate(keys))
    many = {"BURST": "200"}
    async with two(tmp_path, changed=many, api_keys=Keys(named)) as (proxy, client):
        for secret in keys:
            key = {"Authorization": f"Bearer {secret}"}
            prefer = {**key, "Prefer": "respond-async"}
            for path, headers in (("/jobs", key), ("/generate", prefer)):
                status, _, job = await posted(client, path, headers=headers)
                assert status == 202
                async with client.get(f"/jobs/{job['id']}", headers=key) as answer:
                    assert answer.status == 200
        used = {json.loads(line)["upstream"] for line in proxy.log.splitlines()}
    assert len(used) == 2, "all keys went to one service"


async def test_no_service_behind():
    """502 in the one shape of errors, with a Retry-After."""
    async with nginx([1]) as proxy, client_of(proxy) as client:
        status, headers, problem = await posted(client)
        assert (status, problem["code"]) == (502, "bad_gateway")
        assert (headers["Content-Type"], headers["Retry-After"]) == (PROBLEM, "5")


async def test_one_service_is_killed_under_load():
    """No request is lost: also the images it had in work are drawn by the other."""
    async with AsyncExitStack() as stack:
        services = [stack.enter_context(light_service()) for _ in range(2)]
        for each in services:
            await each.line("model_loaded")
        ports = [int(each.url.rpartition(":")[2]) for each in services]
        proxy = await stack.enter_async_context(nginx(ports, BURST="1000"))
        client = await stack.enter_async_context(client_of(proxy))
        statuses: list[int] = []
        enough = asyncio.Event()

        async def load(count):
            for _ in range(count):
                statuses.append((await posted(client))[0])
                if len(statuses) == 20:
                    enough.set()

        async with asyncio.timeout(PATIENCE):
            long = {"body": BODY | {"prompt": "stays"}, "headers": {"X-Request-ID": "the-long-one"}}
            stays = asyncio.create_task(posted(client, **long))
            started = [asyncio.create_task(each.line("job_started")) for each in services]
            await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
            killed, left = services if started[0].done() else reversed(services)
            loads = [asyncio.create_task(load(15)) for _ in range(8)]
            await enough.wait()
            killed.kill()
            await asyncio.gather(*loads)
            assert statuses == [200] * 120
            count, begun = 0, ""
            while begun != "the-long-one":
                count += 1
                begun = (await left.line("job_started", count=count))["request_id"]
            assert not stays.done()
            stays.cancel()
            await asyncio.gather(stays, *started, return_exceptions=True)


async def test_a_job_is_not_looked_for_where_it_is_not(tmp_path):
    """While its service is down it is 502 and a Retry-After, not 404; then it is there again."""
    async with AsyncExitStack() as stack:
        data = [tmp_path / "data-0", tmp_path / "data-1"]
        services = [stack.enter_context(light_service(DATA_DIR=folder)) for folder in data]
        ports = []
        for each in services:
            await each.line("model_loaded")
            ports.append(int(each.url.rpartition(":")[2]))
        proxy = await stack.enter_async_context(nginx(ports))
        client = await stack.enter_async_context(client_of(proxy))
        _, _, job = await posted(client, "/jobs")
        (mine,) = (
            number
            for number, each in enumerate(services)
            if any(line["event"] == "job_queued" for line in each.log)
        )
        services[mine].kill()
        async with client.get(f"/jobs/{job['id']}") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (502, "5")
        again = stack.enter_context(light_service(DATA_DIR=data[mine], API_PORT=ports[mine]))
        await again.line("model_loaded")
        async with client.get(f"/jobs/{job['id']}") as answer:
            assert answer.status == 200
