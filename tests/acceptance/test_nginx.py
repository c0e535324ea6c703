"""docker-compose.nginx.yml's configuration, in front of two live services."""

import asyncio
import hashlib
import json
import re
import ssl
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from service.addresses import Networks
from service.credentials import Keys
from service.engine.fake import FakeEngine
from tests.disasters.conftest import light_service
from tests.job_service import BODY, service
from tests.nginx import needs_nginx, nginx

pytestmark = needs_nginx
KEYS = "alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
ALICE = {"X-API-Key": "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"}
PROBLEM = "application/problem+json"
PATIENCE = 30.0
SPELLINGS = (
    *("/metrics", "/metrics?a", "/metrics/", "//metrics", "//metrics//", "/./metrics"),
    *("/x/../metrics", "/x/..%2fmetrics", "/%6detrics", "/%6Detrics", "/metrics%2f", "/METRICS"),
    *("/metrics%20", "/metrics%00", "/metrics%3fa", "/metrics#a", "/metrics;a", "/metrics."),
    *("https://localhost/metrics", "http://x/metrics", "/docs/..;/metrics", "/jobs/../metrics"),
    *("\\metrics", "/jobs/%2e%2e/metrics", "/generate/../metrics", "*/metrics"),
)


@asynccontextmanager
async def two(folder, *engines, changed=None, **settings):
    """Run services over these engines with nginx in front; hand out nginx and a client of it."""
    async with AsyncExitStack() as stack:
        ports = []
        for number, engine in enumerate(engines or (FakeEngine(), FakeEngine())):
            data = folder / f"data-{number}"
            behind = await stack.enter_async_context(service(data, engine, **settings))
            ports.append(behind.server.port)
        proxy = await stack.enter_async_context(nginx(ports, **(changed or {})))
        yield proxy, await stack.enter_async_context(client_of(proxy))


@asynccontextmanager
async def client_of(proxy, address="127.0.0.1"):
    connector = aiohttp.TCPConnector(ssl=proxy.trust, local_addr=(address, 0), limit=0)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(proxy.url, connector=connector, timeout=timeout) as client:
        yield client


async def posted(client, path="/generate", body=BODY, **more):
    """Post; return status, headers and what the answer holds."""
    async with client.post(path, json=body, **more) as answer:
        assert answer.headers["Strict-Transport-Security"]
        return answer.status, answer.headers, await answer.json(content_type=None)


async def test_tls(tmp_path):
    """Plain HTTP is sent to TLS, which has HTTP/2 and a certificate that clients check."""
    async with two(tmp_path) as (proxy, client):
        async with client.get(f"{proxy.plain}/docs?a=b", allow_redirects=False) as answer:
            assert answer.status == 308
            assert answer.headers["Location"] == f"{proxy.url}/docs?a=b"
        status, _, body = await posted(client)
        assert (status, body["metadata"]["seed"]) == (200, 7)
        proxy.trust.set_alpn_protocols(["h2", "http/1.1"])
        port = int(proxy.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=proxy.trust, server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", port, ssl=ssl.create_default_context(), server_hostname="localhost"
            )


async def test_events_arrive_as_they_happen(tmp_path):
    """Each step is told before the next one is done: nothing is collected on the way."""
    engine, steps = FakeEngine(step_seconds=None), 3
    async with two(tmp_path, engine) as (_, client), asyncio.timeout(PATIENCE):
        _, _, job = await posted(client, "/jobs", BODY | {"steps": steps})
        await engine.jobs(1)
        seen: list[str] = []
        async with client.get(f"/jobs/{job['id']}/events") as stream:
            assert stream.content_type == "text/event-stream"
            for done in range(1, steps + 1):
                await engine.step()
                while not any(f'"step": {done},' in line for line in seen):
                    line = (await stream.content.readline()).decode()
                    assert line, seen
                    seen.append(line)
            rest = (await stream.content.read()).decode()
        assert "event: finished" in "".join(seen) + rest


async def test_a_client_that_hangs_up_frees_the_engine(tmp_path):
    """The proxy hangs up too, so the work for nobody ends."""
    engine = FakeEngine(step_seconds=None)
    async with two(tmp_path, engine) as (proxy, _), asyncio.timeout(PATIENCE):
        port = int(proxy.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=proxy.trust, server_hostname="localhost"
        )
        body = json.dumps(BODY).encode()
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(f"POST /generate HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        (job,) = await engine.jobs(1)
        writer.transport.abort()
        await engine.jobs(0)
        assert engine.cancelled == [job]


async def test_a_large_body_is_refused(tmp_path):
    """413 in the one shape of errors; no service sees it."""
    engine = FakeEngine()
    async with two(tmp_path, engine) as (_, client):
        body = BODY | {"prompt": "x" * 70_000}
        status, headers, problem = await posted(client, body=body, headers={"X-Request-ID": "me"})
        assert (status, headers["Content-Type"]) == (413, PROBLEM)
        assert (problem["code"], problem["status"]) == ("body_too_large", 413)
        assert problem["request_id"] == "me"
        assert "proxy" in problem["detail"]
        assert engine.steps == 0


async def test_a_flood_from_one_address_is_refused(tmp_path):
    """429 with Retry-After from nginx; probes of another address are served."""
    async with two(tmp_path, changed={"RATE": "1r/m", "BURST": "2"}) as (proxy, client):
        answers = [await posted(client) for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        _, headers, problem = answers[-1]
        assert (headers["Content-Type"], headers["Retry-After"]) == (PROBLEM, "1")
        assert problem["code"] == "rate_limited"
        async with client_of(proxy, "127.0.0.2") as other:
            assert (await posted(other))[0] == 200


async def test_the_waiting_time_that_the_service_tells_is_passed_through(tmp_path):
    """Its own 429, with its own Retry-After and body."""
    limits = {"rate_limit_per_minute": 2, "rate_limit_burst": 1}
    async with two(tmp_path, FakeEngine(), **limits) as (_, client):
        assert (await posted(client))[0] == 200
        status, headers, problem = await posted(client)
        assert (status, problem["code"]) == (429, "rate_limited")
        assert int(headers["Retry-After"]) > 20
        assert problem["instance"] == "/generate"


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


async def until_waiting(client):
    """Wait until the service has a request in line; asking is what waits."""
    while True:
        async with client.get("/metrics") as answer:
            if re.search(r"^sd_queue_depth(?:{.*})? 1(?:\.0)?$", await answer.text(), re.MULTILINE):
                return


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


async def test_the_services_own_time_limit_comes_first(tmp_path):
    """408 of the service is passed through: nginx waits longer than it."""
    engine = FakeEngine(step_seconds=None)
    async with two(tmp_path, engine, request_timeout_seconds=0.2) as (_, client):
        status, _, problem = await posted(client)
        assert (status, problem["code"]) == (408, "timeout")


async def test_metrics_stay_inside(tmp_path):
    """No spelling of the path leads there; the service itself has them."""
    async with two(tmp_path) as (proxy, client):
        for path in SPELLINGS:
            answer = await raw(proxy, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n")
            assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), path
            assert b"sd_" not in answer
        for path in ("/metrics", "/metrics?a"):  # What is no odd spelling is a refusal like others.
            async with client.get(path, headers={"X-Request-ID": "me"}) as answer:
                problem = await answer.json(content_type=None)
            assert (answer.status, answer.headers["Content-Type"]) == (404, PROBLEM)
            assert (problem["code"], problem["request_id"]) == ("not_found", "me")
        asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
        assert b"sd_ready" in await raw(proxy, asked, direct=True)


async def raw(proxy, head, *, direct=False):
    """Send a request as it is written; return all that comes back."""
    if direct:
        port, more = proxy.behind[0], {}
    else:
        port = int(proxy.url.rpartition(":")[2])
        more = {"ssl": proxy.trust, "server_hostname": "localhost"}
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **more)
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.transport.abort()
        return answer


async def test_forwarded_for_is_nginx_word_alone(tmp_path):
    """Forged addresses do not evade the limit on wrong keys; another client is not hit by it."""
    settings = {
        "api_keys": Keys(KEYS),
        "trusted_proxies": Networks("127.0.0.1"),
        "auth_failures_per_minute": 3,
    }
    async with two(tmp_path, FakeEngine(), **settings) as (proxy, client):
        statuses = []
        for number in range(5):
            forged = {"X-API-Key": "x" * 32, "X-Forwarded-For": f"192.0.2.{number}"}
            statuses.append((await posted(client, headers=forged))[0])
        assert statuses == [401, 401, 401, 429, 429]
        async with client_of(proxy, "127.0.0.2") as other:
            assert (await posted(other, headers={"X-API-Key": "x" * 32}))[0] == 401
            assert (await posted(other, headers=ALICE))[0] == 200


async def test_a_callers_jobs_are_found_again(tmp_path):
    """Every job of a key is at the service that accepted it, also those of /generate."""
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(8)]
    named = ",".join(f"key{number}:{secret}" for number, secret in enumerate(keys))
    async with two(tmp_path, api_keys=Keys(named)) as (proxy, client):
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
    """No request is lost: also the pictures it had in work are drawn by the other."""
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
