"""Behind a path of a proxy: every address in an answer is one that the client can ask for."""

import json
import re
from urllib.parse import urljoin

import pytest

from service.config.addresses import Networks
from service.http import prefix
from tests.support.job_service import BODY, ask, service, until

SD = {"X-Forwarded-Prefix": "/sd"}
TRUSTED = {"trusted_proxies": Networks("127.0.0.1")}


async def text(client, path, headers=SD) -> str:
    async with client.get(path, headers=headers) as answer:
        assert answer.status == 200
        return str(await answer.text())


async def test_the_page_and_what_it_loads_carry_the_prefix(serve):
    """Its files, its script and the description."""
    client = await serve(**TRUSTED)
    found = re.findall(r'(?:src|href)="([^"]+)"', await text(client, "/docs"))
    assert len(found) == 4
    for address in found:
        assert urljoin("http://x/sd/docs", address).startswith("http://x/sd/docs/")
        async with client.get(address.removeprefix("/sd")) as answer:
            assert answer.status == 200
    assert 'url: "/sd/openapi.json"' in await text(client, "/docs/start.js")
    described = json.loads(await text(client, "/openapi.json"))
    assert described["servers"] == [{"url": "/sd"}]
    assert described == json.loads(await text(client, "/openapi.json", {})) | {
        "servers": [{"url": "/sd"}]
    }


async def test_redirects_and_errors_name_addresses_below_it(serve):
    """The root's redirect; type, instance and detail of a problem."""
    client = await serve(**TRUSTED)
    async with client.get("/", headers=SD, allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/sd/docs"
    for path in ("/nothing", "/docs/nothing"):
        problem = await ask(client, "GET", path, 404, headers=SD)
        assert problem["type"] == "/sd/openapi.json#/components/responses/not_found"
        assert problem["instance"] == f"/sd{path}"
        assert "see /sd/docs" in problem["detail"]


async def test_links_of_jobs_carry_it(tmp_path):
    """In every answer about a job, by the prefix of the request that asks."""
    async with service(tmp_path, **TRUSTED) as client:
        prefer = {"Prefer": "respond-async"}
        for path, more in (("/jobs", {}), ("/generate", prefer)):
            async with client.post(path, json=BODY, headers=SD | more) as answer:
                job = await answer.json()
                place = f"/sd/jobs/{job['id']}"
                assert answer.headers["Location"] == place
            links = {"self": place, "image": f"{place}/image", "events": f"{place}/events"}
            assert job["links"] == links
            await until(client, job["id"], "succeeded")
            for method in ("GET", "DELETE"):
                found = await ask(client, method, f"/jobs/{job['id']}", 200, headers=SD)
                assert found["links"] == links
            found = await ask(client, "GET", f"/jobs/{job['id']}", 200)
            assert found["links"]["self"] == f"/jobs/{job['id']}"
        page = await ask(client, "GET", "/jobs", 200, headers=SD)
        assert all(each["links"]["self"].startswith("/sd/jobs/") for each in page["jobs"])


async def test_nobody_else_is_believed(client):
    """The same header of a peer that is no trusted proxy changes nothing."""
    assert 'src="/docs/start.js"' in await text(client, "/docs")
    assert "servers" not in json.loads(await text(client, "/openapi.json"))
    assert (await ask(client, "GET", "/nothing", 404, headers=SD))["instance"] == "/nothing"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["/sd"], "/sd"),
        ([" /sd/ "], "/sd"),
        (["/a/b-c_d.e~f"], "/a/b-c_d.e~f"),
        (["/"], ""),
        ([""], ""),
        ([], ""),
        (["/sd", "/sd"], ""),
        (["/sd, /x"], ""),
        (["sd"], ""),
        (["//evil.example"], ""),
        (["/a//b"], ""),
        (["/sd//"], ""),
        (["/a/../b"], ""),
        (["/.."], ""),
        (["/./a"], ""),
        (["/a%2f"], ""),
        (["/a?b"], ""),
        (["/a#b"], ""),
        (["/a\\b"], ""),
        (["/\\evil.example"], ""),
        (["https://evil.example"], ""),
        (['/"><script>'], ""),
        (["/a\x00"], ""),
        (["/a\nb"], ""),
        (["/ä"], ""),
        (["/" + "a" * 300], ""),
    ],
)
def test_only_a_plain_path_is_a_prefix(values, found):
    """It is put into pages, JSON and headers."""
    assert prefix.read(values) == found
