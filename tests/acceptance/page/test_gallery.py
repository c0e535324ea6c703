"""The gallery outlives reloads, other windows, expired results and services without storage."""

import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import Dialog, expect

from tests.support.page.browser import PageService, generate, image_of, visiting
from tests.support.service_process import ending

DRAWN = "img:not(.preview)"
"""The finished image of a tile."""


def prompt_of(page):
    return page.get_by_label("Prompt", exact=True)


def test_a_reload_in_the_middle_loses_nothing(page):
    """The job goes on, and the page finds it again with what was asked for."""
    generate(page, "a slow lighthouse", steps=50)
    expect(page.locator(".progress")).to_contain_text("Step")
    page.reload()
    expect(page.locator(".prompt")).to_have_text("a slow lighthouse")
    expect(image_of(page)).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="a slow lighthouse").first).to_be_visible()
    expect(image_of(page)).to_be_visible()
    expect(page.locator("#field-prompt")).to_have_value("a slow lighthouse")
    expect(page.locator("#field-steps")).to_have_value("50")


def test_two_windows_show_the_same(browser, slow):
    """What is made, cancelled and finished in one shows in the other at once."""
    with visiting(browser, slow.url) as visit:
        first, second = visit.page, visit.open()
        generate(first, "for both windows", steps=50)
        second.get_by_role("button", name=re.compile(r"^for both windows\. Step")).click()
        second.get_by_role("button", name="Cancel", exact=True).click()
        expect(first.get_by_role("heading", name="Cancelled")).to_be_visible()
        generate(second, "and this one", steps=3)
        expect(image_of(second)).to_be_visible()
        expect(first.get_by_role("button", name="and this one").locator(DRAWN)).to_be_visible()


def test_images_of_other_clients_are_found(service, page):
    """Without keys everybody is one caller: the list of the service is the gallery."""
    order = {"prompt": "sent by curl", "steps": 2, "seed": 7}
    requests.post(f"{service.url}/jobs", json=order, timeout=20)
    page.reload()
    tile = page.get_by_role("button", name="sent by curl")
    expect(tile.locator(DRAWN)).to_be_visible()
    tile.click()
    expect(page.locator(".facts")).to_contain_text("Seed7")


def test_settings_are_used_again(service, page):
    """All but the seed, then the seed: the same image, byte for byte."""
    generate(page, "a <boat> at (night:1.2)", steps=3, guidance_scale=4, seed=99)
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    prompt_of(page).fill("something else")
    page.get_by_role("button", name="Use these settings").click()
    expect(prompt_of(page)).to_have_value("a <boat> at (night:1.2)")
    expect(page.locator("#field-steps")).to_have_value("3")
    expect(page.locator("#field-guidance_scale")).to_have_value("4")
    expect(page.locator("#field-seed")).to_have_value("")
    page.get_by_role("button", name="Same seed").click()
    expect(page.locator("#field-seed")).to_have_value("99")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".progress")).to_have_count(0)
    expect(page.get_by_role("button", name="a <boat>").locator(DRAWN)).to_have_count(2)
    address = f"{service.url}/jobs?limit=2&state=succeeded"
    listed = requests.get(address, timeout=20).json()["jobs"]
    again, before = (each["metadata"] for each in listed)
    # The hash of the model is read after the start, perhaps between the two.
    others = ("generation_time_seconds", "queue_seconds", "request_id", "model_hash")
    same = [{k: v for k, v in each.items() if k not in others} for each in (again, before)]
    assert same[0] == same[1]


def test_a_download_is_the_file_of_the_service(service, page):
    """With a name that says what it shows."""
    generate(page, "Über den Wolken!", steps=2, seed=5)
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download").click()
    assert coming.value.suggested_filename == "über-den-wolken-5.png"
    job = requests.get(f"{service.url}/jobs?limit=1", timeout=20).json()["jobs"][0]
    kept = requests.get(f"{service.url}{job['links']['image']}?format=png", timeout=20).content
    assert Path(coming.value.path()).read_bytes() == kept


def test_a_removed_image_stays_away(page):
    """The service still lists it."""
    generate(page, "not this one", steps=2)
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="not this one")).to_have_count(0)
    page.reload()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.get_by_role("button", name="not this one")).to_have_count(0)


def test_arrows_move_through_the_gallery(page):
    """The image that has the focus is the large one; alone, too."""
    for number in (1, 2, 3):
        generate(page, f"picture number {number}", steps=2)
        expect(image_of(page)).to_have_attribute("alt", f"picture number {number}")
    page.get_by_role("button", name="picture number 3").focus()
    page.keyboard.press("ArrowRight")
    expect(image_of(page)).to_have_attribute("alt", "picture number 2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="picture number 2")).to_be_focused()
    page.get_by_role("button", name="Show the image alone").press("Enter")
    alone = page.get_by_role("dialog", name="Image")
    expect(alone.get_by_role("img")).to_have_attribute("alt", "picture number 2")
    page.keyboard.press("ArrowRight")
    expect(alone.get_by_role("img")).to_have_attribute("alt", "picture number 1")
    page.keyboard.press("Escape")
    expect(image_of(page)).to_have_attribute("alt", "picture number 1")


def test_images_stay_in_the_browser_when_the_service_has_lost_them(browser):
    """Results expire there; the browser's copies and their settings do not."""
    with ending(PageService()) as service, visiting(browser, service.url) as visit:
        page = visit.page
        generate(page, "kept here", steps=2)
        expect(image_of(page)).to_be_visible()
        for _ in range(2):
            page.reload()
            expect(image_of(page)).to_have_attribute("alt", "kept here")
            for path in (service.folder / "data").iterdir():
                if path.is_dir():
                    shutil.rmtree(path)


@pytest.fixture(scope="module")
def forgetful():
    """Return a service that stores nothing."""
    with ending(PageService(DATA_DIR="", STEP_SECONDS=0.1)) as started:
        started.logged("model_loaded")
        yield started


def test_a_service_that_keeps_nothing_works_as_well(browser, forgetful):
    """Watched and cancelled as usual; the images stay in this browser."""
    with visiting(browser, forgetful.url) as visit:
        page = visit.page
        generate(page, "not stored", steps=20)
        expect(page.get_by_alt_text("Preview of the unfinished image")).to_be_visible()
        expect(image_of(page)).to_be_visible()
        generate(page, "not stored either", steps=50)
        expect(page.locator(".progress")).to_contain_text("Step")
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
        for number in range(4):
            generate(page, f"at once {number}", steps=30)
        expect(page.locator(".progress")).to_contain_text("Waiting in this page")
        for number in range(4):
            expect(
                page.get_by_role("button", name=f"at once {number}").locator(DRAWN)
            ).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="at once 3").locator(DRAWN)).to_be_visible()
        expect(page.get_by_role("button", name="not stored", exact=True)).to_be_visible()
    deadline = time.monotonic() + 20
    while requests.get(f"{forgetful.url}/health", timeout=20).json()["running"]:
        assert time.monotonic() < deadline


def test_a_service_that_keeps_nothing_asks_before_its_page_is_closed(browser, forgetful):
    """What was lost then says so after a reload of the page."""
    with visiting(browser, forgetful.url) as visit:
        page = visit.page
        generate(page, "soon lost", steps=50)
        expect(page.locator(".progress")).to_contain_text("Step")
        asked: list[str] = []

        def answer(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.accept()

        page.once("dialog", answer)
        page.reload()
        expect(page.locator("#field-prompt")).to_have_value("soon lost")
        assert asked == ["beforeunload"]


def test_the_page_waits_for_a_service_that_is_away(browser):
    """It says so, and goes on by itself when the service is back."""
    with ending(PageService()) as service:
        port = service.url.rpartition(":")[2]
        folder = service.folder
        with visiting(browser, service.url) as visit:
            page = visit.page
            generate(page, "before", steps=2)
            expect(image_of(page)).to_be_visible()
            generate(page, "interrupted", steps=50)
            expect(page.locator(".progress")).to_contain_text("Step")
            service.process.kill()
            service.process.wait()
            expect(page.locator(".banner")).to_contain_text("The service does not answer")
            again = PageService(API_PORT=port, DATA_DIR=folder / "data")
            with ending(again):
                again.logged("model_loaded")
                expect(page.locator(".banner")).to_have_count(0)
                expect(
                    page.get_by_role("button", name="interrupted").locator(DRAWN)
                ).to_be_visible()


@pytest.mark.parametrize(
    ("language", "run"),
    [
        ("curl", ["bash", "-euo", "pipefail"]),
        ("Python", [sys.executable]),
        ("JavaScript", ["node"]),
    ],
)
def test_the_request_as_code_makes_the_same_image(service, page, tmp_path, language, run):
    """Copied as it is shown, for one image and for several."""
    for count, steps in ((1, 2), (2, 3)):
        prompt_of(page).fill(f'it\'s "{language}" `code` $HOME \\ é')
        page.locator("#field-steps").fill(str(steps))
        page.locator("#field-seed").fill("11")
        page.get_by_role("button", name=str(count), exact=True).click()
        page.get_by_role("button", name="As code").first.click()
        page.get_by_role("dialog").get_by_role("button", name=language).click()
        code = page.locator("dialog pre").inner_text()
        page.keyboard.press("Escape")
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "image.mjs").write_text(code, encoding="utf-8")
        subprocess.run([*run, "image.mjs"], cwd=folder, check=True, timeout=60)
        files = sorted(folder.glob("*.png"))
        assert len(files) == count
        page.get_by_role("button", name="Generate").click()
        expect(page.locator(".progress")).to_have_count(0)
        expect(image_of(page)).to_be_visible()
        job = requests.get(f"{service.url}/jobs?limit=1", timeout=20).json()["jobs"][0]
        address = f"{service.url}/jobs/{job['id']}/image?index={count - 1}"
        expect(page.locator(".facts")).to_contain_text(f"Steps{steps}")
        shown = requests.get(address, timeout=20).content
        assert pixels(files[-1].read_bytes()) == pixels(shown)
        assert language in job["metadata"]["prompt"]


def pixels(data: bytes) -> bytes:
    """Return what an image shows, without the texts in its file."""
    return Image.open(io.BytesIO(data)).tobytes()
