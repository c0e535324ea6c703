"""One browser, and one service with the fake engine, for the tests of a file."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.page.browser import PageService, Visit, chromium, visiting
from tests.support.service_process import ending


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def service() -> Iterator[PageService]:
    with ending(PageService()) as started:
        started.logged("model_loaded")
        yield started


@pytest.fixture
def visit(browser: Browser, service: PageService) -> Iterator[Visit]:
    with visiting(browser, service.url) as opened:
        yield opened


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
