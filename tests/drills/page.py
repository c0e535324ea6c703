"""Take the screenshots of the page, with images of the demo model.

Starts the service with the demo model on the loopback address, makes a few images with the page in
Chromium, and writes what it looks like into ``docs/page``, with at most 256 colours a file.

    python -m tests.drills.page
"""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.page.browser import PHONE, chromium, generate, image_of, visiting
from tests.support.page.uploads import stroke
from tests.support.service_process import ServiceProcess, running_service

FOLDER: Final = Path(__file__).parents[2] / "docs" / "page"
SIZE: Final = {"width": 1280, "height": 800}
WAIT_MS: Final = 300_000
MOST_BYTES: Final = 200_000
COLOURS: Final = (256, 128, 64)

PROMPTS: Final = {
    "A castle on green hills at dawn": 4,
    "A black cat in the snow at night": 11,
    "A pink flower in a garden": 7,
    "A purple dragon over the mountains at sunset": 3,
    "A white balloon over the sea at dawn": 5,
    "A cozy cabin in the woods": 21,
}
"""Images of the gallery, the oldest first, with their seeds."""

LAST: Final = ("A red boat on the sea at sunset", 42)
WAITING: Final = ("A cute robot in the city at night", 9)
REPAINTED: Final = ("A white boat on the sea at sunset", 8)


def main() -> int:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    settings = {"DEVICE": "cpu", "MAX_CONCURRENT_REQUESTS": 1}
    with chromium() as browser, running_service(**settings) as service:
        with opened(browser, service) as page:
            expect(page.locator(".stage.empty")).to_be_visible()
            saved(page, "empty")
            draw(page)
            saved(page, "gallery")
            generate(page, LAST[0], steps=99, width=300)
            expect(page.locator("#fault-width")).to_be_visible()
            saved(page, "error", scrolled=True)
            page.get_by_role("button", name="Reset").click()
            repaint(page)
            kept = page.context.storage_state()
        with opened(browser, service, storage_state=kept, color_scheme="dark") as page:
            expect(image_of(page)).to_be_visible()
            page.get_by_role("button", name="Reset").click()
            page.get_by_role("button", name="Ready").click()
            expect(page.locator("#panel")).to_contain_text("Up for")
            saved(page, "dark")
        phone = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
        with opened(browser, service, storage_state=kept, **phone) as page:
            expect(image_of(page)).to_be_visible()
            page.get_by_label("Prompt", exact=True).fill(LAST[0])
            saved(page, "phone")
            page.get_by_role("button", name="Use as input").click()
            paint(page)
            saved(page, "brush-phone")
    keys = {"API_KEYS": "anna:0123456789abcdef0123456789abcdef"}
    with (
        chromium() as browser,
        running_service(**settings, **keys) as service,
        opened(browser, service) as page,
    ):
        expect(page.get_by_role("dialog")).to_be_visible()
        saved(page, "key")
    return 0


@contextmanager
def opened(browser: Browser, service: ServiceProcess, **options: Any) -> Iterator[Page]:
    """Hand out the page of a service in a window of the usual size."""
    with visiting(browser, service.url, **{"viewport": SIZE, **options}) as visit:
        visit.page.set_default_timeout(WAIT_MS)
        yield visit.page


def draw(page: Page) -> None:
    """Make the images, and a screenshot in the middle of one while another one waits."""
    for prompt, seed in PROMPTS.items():
        generate(page, prompt, seed=seed)
        finished(tile(page, prompt))
    prompt, seed = LAST
    generate(page, prompt, seed=seed)
    generate(page, WAITING[0], seed=WAITING[1])
    tile(page, prompt).click()
    step = re.compile(r"Step 1[0-2] of")
    expect(page.locator(".progress")).to_contain_text(step, timeout=WAIT_MS)
    saved(page, "generating")
    finished(tile(page, prompt))
    finished(tile(page, WAITING[0]))
    page.get_by_role("button", name=prompt).click()
    page.get_by_label("Prompt", exact=True).fill(prompt)


def repaint(page: Page) -> None:
    """Paint over a part of the last image and make it anew, with a screenshot of each."""
    prompt, seed = REPAINTED
    tile(page, LAST[0]).click()
    page.get_by_role("button", name="Use as input").click()
    paint(page)
    saved(page, "brush")
    page.get_by_role("button", name="Done").click()
    generate(page, prompt, seed=seed)
    finished(tile(page, prompt))
    page.mouse.move(0, 0)
    saved(page, "input")


def paint(page: Page) -> None:
    """Open the brush and paint over the boat."""
    page.get_by_role("button", name="Paint a mask").click()
    page.get_by_label("Size", exact=True).fill("120")
    around = ((0.52, 0.38), (0.44, 0.6), (0.34, 0.76), (0.66, 0.78), (0.6, 0.6), (0.56, 0.4))
    stroke(page.get_by_role("application"), *around)


def tile(page: Page, prompt: str) -> Locator:
    """Return the tile of a prompt in the gallery."""
    return page.locator(f'.tile[aria-label^="{prompt}"]')


def finished(found: Locator) -> None:
    """Wait until a tile shows a finished image."""
    expect(found.locator("img:not(.preview)")).to_be_visible(timeout=WAIT_MS)


def saved(page: Page, name: str, *, scrolled: bool = False) -> None:
    """Write what the window shows, small enough for a repository.

    Raises:
        ValueError: it is not, with the fewest colours.

    """
    page.evaluate("document.activeElement?.blur()")
    if not scrolled:
        page.evaluate("document.querySelector('.form').scrollTop = 0")
    shown = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    for colours in COLOURS:
        file = io.BytesIO()
        shown.quantize(colours, method=Image.Quantize.MEDIANCUT).save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= MOST_BYTES:
            (FOLDER / f"{name}.png").write_bytes(file.getvalue())
            print(f"{name}.png: {len(file.getvalue()) / 1000:.0f} kB, {colours} colours")
            return
    raise ValueError(f"{name}.png would have {len(file.getvalue())} bytes.")


if __name__ == "__main__":
    sys.exit(main())
