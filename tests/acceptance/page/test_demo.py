"""The page with the bundled demo model: a person's first image, without anything fake."""

import io
from pathlib import Path

from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Page, expect

from tests.support.page.browser import generate, image_of, visiting
from tests.support.page.uploads import choose, photo, stroke
from tests.support.service_process import running_service

DRAWN_MS = 120_000


def test_the_first_image_is_drawn_by_the_demo_model(browser):
    """Watched, with an adapter, in AUTOMATIC1111's syntax, and with its facts."""
    with running_service(DEVICE="cpu") as service, visiting(browser, service.url) as visit:
        page = visit.page
        page.get_by_label("Add a LoRA").select_option("ink")
        numbers = {"width": 256, "height": 256, "steps": 12, "seed": 7}
        generate(page, "a (red:1.1) boat on the sea at sunset, ink drawing", **numbers)
        preview = page.get_by_alt_text("Preview of the unfinished image")
        expect(preview).to_be_visible(timeout=DRAWN_MS)
        expect(image_of(page)).to_be_visible(timeout=DRAWN_MS)
        facts = page.locator(".facts")
        for text in ("Guidance3", "LoRAink 1", "Seed7", "Modeldemo"):
            expect(facts).to_contain_text(text)
        image = downloaded(page)
        assert image.size == (256, 256)
        assert min(ImageStat.Stat(image).stddev) > 10


def test_a_part_of_an_image_is_painted_over_and_drawn_anew(browser):
    """The rest of it stays as it was, byte for byte."""
    with running_service(DEVICE="cpu") as service, visiting(browser, service.url) as visit:
        page = visit.page
        file = photo(256, 256)
        choose(page, file)
        page.get_by_role("button", name="Paint a mask").click()
        stroke(page.get_by_role("application"), (0.5, 0.5), (0.5, 0.7))
        page.get_by_role("button", name="Done").click()
        generate(page, "a cozy cabin in the woods", steps=8, seed=7)
        expect(image_of(page)).to_be_visible(timeout=DRAWN_MS)
        changed = ImageChops.difference(downloaded(page), Image.open(io.BytesIO(file["buffer"])))
        left, top, right, bottom = changed.getbbox() or (0, 0, 0, 0)
        assert 128 - 40 < left < 128 < right < 128 + 40
        assert 128 - 40 < top < 128
        assert 179 < bottom < 179 + 40


def downloaded(page: Page) -> Image.Image:
    """Return the image of the page as its file has it."""
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download").click()
    return Image.open(io.BytesIO(Path(coming.value.path()).read_bytes()))
