"""A browser on the page of a service, watched for what must never happen on it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.service_process import ServiceProcess

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parents[3] / ".venvs/clients/node_modules/axe-core/axe.min.js"
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
STATUSES = re.compile(r"Failed to load resource: .*")
"""What Chromium writes for each answer of 400 and above, expected or not."""

expect.set_options(timeout=20_000)


class PageService(ServiceProcess):
    """The real service around the fake engine, whose steps take ``STEP_SECONDS``."""

    module = "tests.support.page.fake_service"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"STEP_SECONDS": 0.03, **settings})


@contextmanager
def chromium() -> Iterator[Browser]:
    """Hand out the browser of this machine; nothing is downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visitor of one service: an empty profile, and all that its pages did."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(**{"viewport": WIDE, **options})
        self.context.set_default_timeout(20_000)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page = self.open()

    def open(self) -> Page:
        """Open the page in one more tab."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.url)
        return page

    def _heard(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not STATUSES.match(text):
            self.faults.append(text)

    def close(self) -> None:
        """Close all tabs; complain of errors and of requests to anybody else.

        Raises:
            AssertionError: with what happened.

        """
        self.context.close()
        assert self.faults == []
        home = urlsplit(self.url).netloc
        here = [each for each in self.requests if urlsplit(each).scheme not in {"blob", "data"}]
        assert {urlsplit(each).netloc for each in here} == {home}


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Hand out a visit, and check at its end that nothing went wrong unseen."""
    visit = Visit(browser, url, **options)
    try:
        yield visit
    except BaseException:
        visit.context.close()
        raise
    visit.close()


def generate(page: Page, prompt: str, **numbers: int) -> None:
    """Write a prompt, fill in numbers by the names of fields, and press the button."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, number in numbers.items():
        page.locator(f"#field-{name}").fill(str(number))
    page.get_by_role("button", name="Generate").click()


def image_of(page: Page) -> Any:
    """Return the large image of the page, which is there when its job is finished."""
    return page.locator(".frame .plain img")


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong, by rule and element: WCAG 2.2 A and AA, and more."""
    # Read by the browser from the test, not by the page: its policy would not let it in.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def transferred(page: Page) -> list[dict[str, Any]]:
    """Return what the page has loaded since it was opened: address and bytes on the wire."""
    script = """JSON.stringify([
        ...performance.getEntriesByType("navigation"),
        ...performance.getEntriesByType("resource"),
    ].map((each) => ({url: each.name, sent: each.transferSize, size: each.decodedBodySize})))"""
    found: list[dict[str, Any]] = json.loads(page.evaluate(script))
    return found
