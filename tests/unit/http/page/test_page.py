"""GET /: the page and its files, as they are served."""

import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

from service.http.page import page

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
REPOSITORY = Path(__file__).parents[4]
STATIC = Path(str(files("service.http.page"))) / "static"
QUOTED = re.compile(r'(?:src|href)="([^"]+)"')
IMPORT = re.compile(r'^import [^;]*? from "([^"]+)";$', re.MULTILINE)


async def index(client) -> str:
    async with client.get("/", headers=BROWSER) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        return str(await answer.text())


async def test_browsers_get_the_page_and_others_the_documentation(client):
    """A request for HTML is a browser's; programs are led to the description as before."""
    assert "<title>sd-api</title>" in await index(client)
    for accepts in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        async with client.get("/", headers=accepts, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "/docs")
            assert answer.headers["Vary"] == "Accept"


async def test_nothing_inline_and_nothing_from_elsewhere_may_run(client):
    """The policy forbids it, and the page does without it."""
    async with client.get("/", headers=BROWSER) as answer:
        policy = answer.headers["Content-Security-Policy"]
        text = await answer.text()
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "style=" not in text
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=", text)


async def test_every_file_that_the_page_names_is_there_and_stays_in_caches(client):
    """Their addresses change with their contents, and are relative: any prefix works."""
    addresses = [each for each in QUOTED.findall(await index(client)) if each != "docs"]
    assert len(addresses) > 10
    for address in addresses:
        assert address.startswith(f"page/{page.version()}/")
        async with client.get(f"/{address}") as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            tag = answer.headers["ETag"]
        async with client.get(f"/{address}", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304


async def test_the_page_itself_is_asked_for_each_time(client):
    """It names the version of its files; 304 while nothing has changed."""
    async with client.get("/", headers=BROWSER) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        tag = answer.headers["ETag"]
    async with client.get("/", headers=BROWSER | {"If-None-Match": tag}) as answer:
        assert answer.status == 304


async def test_files_are_packed_for_those_who_take_it(client):
    """Caches tell the two forms apart."""
    address = f"/page/{page.version()}/ui/app.js"
    asked = {"Accept-Encoding": "gzip"}
    async with client.get(address, headers={"Accept-Encoding": "identity"}) as plain:
        content = await plain.read()
    async with client.get(address, headers=asked) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert await packed.read() == content
        assert int(packed.headers["Content-Length"]) < len(content) / 2
        assert packed.headers["Vary"] == "Accept-Encoding"
        tag = packed.headers["ETag"]
    assert tag != plain.headers["ETag"]
    async with client.get(address, headers=asked | {"If-None-Match": tag}) as again:
        assert again.status == 304


async def test_files_of_another_version_are_not_kept(client):
    """While a new version is rolled out, a page of the old one may ask the new one."""
    async with client.get("/page/0123456789abcdef/ui/app.js") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name", ["index.html", "..%2fpage.py", "ui/..%2f..%2fpage.py", "ui/none.js"]
)
async def test_nothing_else_of_the_package_is_served(client, name):
    """Only what is listed is looked up."""
    async with client.get(f"/page/{page.version()}/{name}") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("base.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
        ("ui/app.js", "text/javascript"),
    ],
)
async def test_files_have_their_type(client, name, kind):
    """Browsers refuse a style sheet or a script of another type (nosniff)."""
    async with client.get(f"/page/{page.version()}/{name}") as answer:
        assert (answer.status, answer.content_type) == (200, kind)


def test_all_modules_are_loaded_at_once():
    """Each is named in the page, so none waits until another one that imports it has come."""
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    for file in STATIC.rglob("*.js"):
        assert f'"page/{file.relative_to(STATIC).as_posix()}"' in text


def test_modules_import_what_is_there():
    """No build step finds a wrong name, so this does."""
    for file in STATIC.rglob("*.js"):
        text = file.read_text(encoding="utf-8")
        code = text if file.name != "snippets.js" else text.partition("export")[0]
        for other in IMPORT.findall(code):
            assert (file.parent / other).is_file(), (file.name, other)


def test_no_module_makes_markup_of_text():
    """Prompts and errors are shown as text; the policy would refuse anything else."""
    for file in STATIC.rglob("*.js"):
        if file.name != "preact.js":
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_licences_of_copied_files_are_listed():
    """The one file that others wrote is unchanged, and its licences come with it."""
    listed = (REPOSITORY / "THIRD_PARTY.md").read_text(encoding="utf-8")
    digest = hashlib.sha256((STATIC / "preact.js").read_bytes()).hexdigest()
    assert digest in listed
    assert "Apache License" in listed
    assert "The MIT License (MIT)" in listed
