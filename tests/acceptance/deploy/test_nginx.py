"""docker-compose.nginx.yml's configuration: what passes through it, and what it refuses."""

import asyncio
import json
import re
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest

from service.config.addresses import Networks
from service.config.credentials import Keys
from tests.support.deploy.nginx import ROOT, free_port, needs_nginx, nginx
from tests.support.deploy.proxied import PATIENCE, PROBLEM, client_of, posted, two
from tests.support.job_service import BODY, service
from tests.support.simulation.fake_engine import FakeEngine

pytestmark = needs_nginx
KEYS = "alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
ALICE = {"X-API-Key": "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"}
SPELLINGS = (
    *("/metrics", "/metrics?a", "/metrics/", "//metrics", "//metrics//", "/./metrics"),
    *("/x/../metrics", "/x/..%2fmetrics", "/%6detrics", "/%6Detrics", "/metrics%2f", "/METRICS"),
    *("/metrics%20", "/metrics%00", "/metrics%3fa", "/metrics#a", "/metrics;a", "/metrics."),
    *("https://localhost/metrics", "http://x/metrics", "/docs/..;/metrics", "/jobs/../metrics"),
    *("\\metrics", "/jobs/%2e%2e/metrics", "/generate/../metrics", "*/metrics"),
)


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
    async with two(tmp_path, engine, changed={"IMAGE_BODY_LIMIT": "100k"}) as (_, client):
        body = BODY | {"prompt": "x" * 110_000}
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


async def test_one_client_behind_nginx_takes_its_share_and_no_more(tmp_path):
    """429 of the service for the client that nginx names; others and probes are served."""
    engine = FakeEngine(step_seconds=None)
    settings = {"trusted_proxies": Networks("127.0.0.1"), "max_connections": 8}
    async with two(tmp_path, engine, **settings) as (proxy, client), AsyncExitStack() as stack:
        _, _, job = await posted(client, "/jobs")
        events = f"/jobs/{job['id']}/events"
        for _ in range(2):
            stream = await stack.enter_async_context(client.get(events))
            assert stream.status == 200
        for path, status in ((events, 429), ("/docs", 429), ("/health/live", 200)):
            async with client.get(path) as answer:
                assert answer.status == status
                if status == 429:
                    problem = await answer.json(content_type=None)
                    assert problem["code"] == "too_many_from_address"
                    assert answer.headers["Retry-After"] == "1"
        async with client_of(proxy, "127.0.0.2") as other, other.get(events) as stream:
            assert stream.status == 200


async def test_the_files_of_the_page_are_no_flood(tmp_path):
    """A browser asks for all of them at once, and again after a reload."""
    async with two(tmp_path, FakeEngine(), changed={"RATE": "1r/m", "BURST": "1"}) as (_, client):
        async with client.get("/", headers={"Accept": "text/html"}) as answer:
            files = re.findall(r'(?:src|href)="(page/[^"]+)"', await answer.text())
        assert files
        for file in files * 5:
            async with client.get(f"/{file}") as answer:
                assert answer.status == 200


async def test_behind_a_path_every_address_leads_back_through_it(tmp_path):
    """As docs/DEPLOYMENT.md has nginx do it; a client's own word for the path is not passed on."""
    said = (ROOT / "docs" / "DEPLOYMENT.md").read_text(encoding="utf-8")
    snippet = re.search(r"^location /sd/ \{.*?^\}$", said, re.MULTILINE | re.DOTALL)
    assert snippet is not None
    forged = {"X-Forwarded-Prefix": "/evil"}
    async with AsyncExitStack() as stack:
        settings = {"trusted_proxies": Networks("127.0.0.1")}
        behind = await stack.enter_async_context(service(tmp_path, FakeEngine(), **settings))
        place = snippet[0].replace("127.0.0.1:8000", f"127.0.0.1:{behind.server.port}")
        port = free_port()
        more = f"server {{ listen 127.0.0.1:{port}; access_log off;\n{place}\n}}"
        proxy = await stack.enter_async_context(nginx([behind.server.port], more))
        url = f"http://localhost:{port}"
        client = await stack.enter_async_context(aiohttp.ClientSession(url, headers=forged))
        async with client.get("/sd/") as answer:
            assert answer.url.path == "/sd/docs"
            addresses = re.findall(r'(?:src|href)="([^"]+)"', await answer.text())
        for address in addresses:
            async with client.get(address) as answer:
                assert answer.status == 200
        async with client.get("/sd/openapi.json") as answer:
            assert (await answer.json())["servers"] == [{"url": "/sd"}]
        async with client.post("/sd/jobs", json=BODY) as answer:
            job = await answer.json()
            assert answer.headers["Location"] == job["links"]["self"] == f"/sd/jobs/{job['id']}"
        async with client.get(job["links"]["events"]) as answer:
            assert "event: finished" in await answer.text()
        async with client.get(job["links"]["image"]) as answer:
            assert answer.content_type == "image/png"
        tls = await stack.enter_async_context(client_of(proxy))
        _, headers, _ = await posted(tls, "/jobs", headers=forged)
        assert headers["Location"].startswith("/jobs/")
