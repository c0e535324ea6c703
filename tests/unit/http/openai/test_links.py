"""Links to images: ``response_format=url``."""

import io
import re
import time

import pytest
from PIL import Image
from yarl import URL

from service.access.links import FILE, LinkSigner
from service.config.addresses import Hosts, Networks
from service.config.credentials import Keys
from tests.support.job_service import service

PATH = "/v1/images/generations"


async def linked(client, headers=None, **body):
    """Ask for links and return them with the path and query of each."""
    sent = {"prompt": "a boat", "response_format": "url", "size": "256x256", **body}
    async with client.post(PATH, json=sent, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        data = (await answer.json())["data"]
    assert all(each.keys() == {"url", "seed"} for each in data)
    return [each["url"] for each in data]


async def got(client, url):
    """Return the status and the body of a link."""
    async with client.get(URL(url, encoded=True).relative()) as answer:
        return answer.status, await answer.read()


async def test_a_link_opens_without_a_key(tmp_path):
    """Whoever has it sees the image, and nothing else; each image has its own."""
    key = "0123456789abcdef" * 2
    async with service(tmp_path, api_keys=Keys(f"anna:{key}")) as client:
        bearer = {"Authorization": f"Bearer {key}"}
        links = await linked(client, bearer, n=2)
        assert len({*links}) == 2
        for each in links:
            assert each.startswith(f"http://{client.host}:{client.port}/v1/images/")
            status, body = await got(client, each)
            assert (status, Image.open(io.BytesIO(body)).size) == (200, (256, 256))


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"signature=.", "signature=x"),
        (r"signature=.*", "signature="),
        (r"&signature=.*", ""),
        (r"expires=\d+", "expires=99999999999"),
        (r"expires=\d+", "expires=x"),
        (r"expires=\d+", "expires=" + "9" * 5000),
        (r"/0\.png", "/1.png"),
        (r"/0\.png", "/0.webp"),
        (r"/0\.png", "/..%2F0.png"),
    ],
)
async def test_a_link_that_was_changed_opens_nothing(tmp_path, pattern, replacement):
    """The signature holds for one image, one format and one time."""
    async with service(tmp_path) as client:
        (link,) = await linked(client)
        changed = re.sub(pattern, replacement, link)
        assert changed != link
        status, body = await got(client, changed)
        assert status == 403
        assert b"link_refused" in body


async def test_a_link_ends(tmp_path, monkeypatch):
    """After IMAGE_URL_SECONDS."""
    async with service(tmp_path, image_url_seconds=100) as client:
        (link,) = await linked(client)
        assert (await got(client, link))[0] == 200
        now = time.time()
        monkeypatch.setattr("service.access.links.time.time", lambda: now + 101)
        assert (await got(client, link))[0] == 403


async def test_a_link_outlives_a_restart(tmp_path):
    """As the image does that it leads to."""
    async with service(tmp_path) as client:
        (link,) = await linked(client)
    async with service(tmp_path) as client:
        assert (await got(client, link))[0] == 200


async def test_a_link_has_the_path_of_a_proxy(tmp_path):
    """The prefix and the scheme, if the proxy is a trusted one."""
    headers = {"X-Forwarded-Prefix": "/sd", "X-Forwarded-Proto": "https", "Host": "gpu.example"}
    trusted = Networks("127.0.0.1")
    async with service(
        tmp_path, trusted_proxies=trusted, allowed_hosts=_hosts("gpu.example")
    ) as client:
        (link,) = await linked(client, headers)
        assert link.startswith("https://gpu.example/sd/v1/images/")
        assert (await got(client, link.replace("/sd/", "/")))[0] == 200
    async with service(tmp_path / "other", allowed_hosts=_hosts("gpu.example")) as client:
        (link,) = await linked(client, headers)
        assert link.startswith("http://gpu.example/v1/images/")


def _hosts(text):
    return Hosts(text)


async def test_the_image_has_the_format_that_was_asked_for(tmp_path):
    """And the quality."""
    async with service(tmp_path) as client:
        sizes = []
        for quality in (90, 10):
            (link,) = await linked(client, seed=1, output_format="jpeg", output_compression=quality)
            _, body = await got(client, link)
            assert Image.open(io.BytesIO(body)).format == "JPEG"
            sizes.append(len(body))
        assert sizes[1] < sizes[0]


def test_a_key_is_kept_for_its_owner_only(tmp_path):
    """Others on the machine could sign with it; what is no key is replaced."""
    first, second = LinkSigner(), LinkSigner()
    first.load(tmp_path)
    second.load(tmp_path)
    path = tmp_path / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert second.opens("a", 10**12, first.signature("a", 10**12))
    path.write_bytes(b"short")
    third = LinkSigner()
    third.load(tmp_path)
    assert not third.opens("a", 10**12, first.signature("a", 10**12))
    assert len(path.read_bytes()) == 32


def test_without_its_folder_a_key_lasts_as_long_as_the_process(tmp_path):
    """A disk that cannot be written is no reason not to start."""
    signer = LinkSigner()
    signer.load(tmp_path / "missing")
    assert signer.opens("a", 10**12, signer.signature("a", 10**12))
