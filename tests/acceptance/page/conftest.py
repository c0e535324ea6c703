"""One browser, and one service with the fake engine, for the tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.page.browser import CHROMIUM, PageService, Visit, chromium, visiting
from tests.support.service_process import ending


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is missing: apt install chromium")
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def service() -> Iterator[PageService]:
    with ending(PageService()) as started:
        started.logged("model_loaded")
        yield started


@pytest.fixture(scope="module")
def slow() -> Iterator[PageService]:
    """Return a service that works on one image at a time, slowly, and lets two wait."""
    slowly = {"STEP_SECONDS": 0.4, "MAX_CONCURRENT_REQUESTS": 1, "QUEUE_SIZE": 2}
    with ending(PageService(**slowly)) as started:
        started.logged("model_loaded")
        yield started


@pytest.fixture
def visit(browser: Browser, service: PageService) -> Iterator[Visit]:
    with visiting(browser, service.url) as opened:
        yield opened


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
