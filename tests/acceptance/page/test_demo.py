"""The page with the bundled demo model: a person's first image, without anything fake."""

import io
from pathlib import Path

from PIL import Image, ImageStat
from playwright.sync_api import expect

from tests.support.page.browser import generate, image_of, visiting
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
        with page.expect_download() as coming:
            page.get_by_role("link", name="Download").click()
        image = Image.open(io.BytesIO(Path(coming.value.path()).read_bytes()))
        assert image.size == (256, 256)
        assert min(ImageStat.Stat(image).stddev) > 10
