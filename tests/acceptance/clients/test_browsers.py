"""Pages of other origins in a real browser, and what the package openai sends from one."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, async_playwright

from service.app import create_app
from service.config.addresses import Origins
from service.config.table import Config
from service.http.middleware.cors import REQUEST_HEADERS
from tests.support import client_packages
from tests.support.simulation.fake_engine import FakeEngine

CHROMIUM = shutil.which("chromium")
SIZE = {"width": 256, "height": 256, "steps": 1}
A1111 = {"prompt": "a boat", "cfg_scale": 7, "batch_size": 1, "n_iter": 1, **SIZE}
DALLE = {"model": "dall-e-3", "prompt": "a boat", "n": 1, "size": "1024x1024"}
DALLE["response_format"] = "b64_json"

CALLS: dict[str, tuple[str, str, dict[str, str], dict[str, object] | None, str]] = {
    "options": ("GET", "/sdapi/v1/options", {}, None, "samples_format"),
    "models": ("GET", "/sdapi/v1/sd-models", {}, None, "0"),
    "txt2img": ("POST", "/sdapi/v1/txt2img", {}, A1111, "images"),
    "dalle": ("POST", "/v1/images/generations", {"Authorization": "Bearer x"}, DALLE, "data"),
    "native": ("POST", "/generate", {}, {"prompt": "a boat", **SIZE}, "image_base64"),
}
"""KoboldAI Lite of 2026-07-21: what it asks for from its page, and the field that it reads; and
the native API."""

SCRIPT = """
async ([url, method, headers, body]) => {
  try {
    const answer = await fetch(url, body === null ? {method} : {
      method, headers: {"Content-Type": "application/json", ...headers}, body: JSON.stringify(body),
    });
    const id = answer.headers.get("X-Request-ID");
    return {status: answer.status, id, body: await answer.json()};
  } catch (error) {
    return {failure: String(error)};
  }
}
"""


async def blank(_: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>A page</title>", content_type="text/html")


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """Open a browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield await browser.new_page()
        await browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="it needs chromium")
async def test_a_listed_page_works_and_another_does_not(page: Page) -> None:
    """The same page of another origin reads nothing, and makes nothing."""
    other = web.Application()
    other.router.add_get("/", blank)
    async with TestServer(other) as pages:
        engine = FakeEngine()
        listed = f"http://localhost:{pages.port}"
        config = Config(data_dir="", cors_origins=Origins(listed))
        async with TestServer(create_app(config, engine)) as service:
            for origin in (f"http://127.0.0.1:{pages.port}", listed):
                await page.goto(f"{origin}/")
                for method, path, headers, body, field in CALLS.values():
                    asked = [str(service.make_url(path)), method, headers, body]
                    found = await page.evaluate(SCRIPT, asked)
                    if origin != listed:
                        assert "Failed to fetch" in found["failure"], path
                        continue
                    assert (found["status"], bool(found["id"])) == (200, True), (path, found)
                    assert field in json.dumps(found["body"]) or found["body"][0], path
                if origin != listed:
                    assert engine.steps == 0


@client_packages.needed
@pytest.mark.skipif(shutil.which("node") is None, reason="it needs Node")
def test_the_headers_of_the_package_openai_are_allowed() -> None:
    """With ``dangerouslyAllowBrowser``; a browser sends nothing that was not allowed."""
    script, packages = client_packages.SCRIPTS / "browser_headers.mjs", client_packages.FOLDER
    command = ["node", str(script), str(packages)]
    sent = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert "x-stainless-lang" in sent
    assert set(sent) <= set(REQUEST_HEADERS.lower().split(", "))
