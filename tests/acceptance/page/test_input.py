"""Images start from an image: chosen, dropped, pasted, or a result of the gallery."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.page.browser import PageService, generate, image_of, visiting
from tests.support.page.uploads import box_of, choose, digest, drop, photo, sent_by
from tests.support.service_process import ending


def latest(service: PageService) -> dict[str, Any]:
    """Return the metadata of the newest job."""
    listed = requests.get(f"{service.url}/jobs?limit=1&state=succeeded", timeout=20).json()
    found: dict[str, Any] = listed["jobs"][0]["metadata"]
    return found


def thumbnail(page: Page) -> Any:
    return page.locator(".thumbnail img")


def painted(page: Page) -> None:
    """Paint a spot in the middle of the image."""
    page.get_by_role("button", name=re.compile("(Paint a|Change the) mask")).click()
    page.get_by_role("application").press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Done").click()


def test_an_image_is_made_from_an_image(service, page):
    """With its strength; without a size it keeps its shape."""
    choose(page, photo(512, 384))
    page.locator("#field-strength").fill("0.5")
    page.get_by_label("Resize").select_option("stretch")
    generate(page, "a watercolour meadow", steps=40, seed=3)
    expect(page.get_by_alt_text("Preview of the unfinished image")).to_be_visible()
    expect(image_of(page)).to_be_visible()
    made = latest(service)
    assert made["image"]["digest"] == digest(photo(512, 384))
    wanted = {"strength": 0.5, "resize": "stretch", "width": 512, "height": 384, "steps": 40}
    assert wanted.items() <= made.items()
    for text in ("MadeFrom image", "Strength0.5", "Seed3"):
        expect(page.locator(".facts")).to_contain_text(text)
    expect(page.get_by_role("button", name="a watercolour meadow. From image")).to_be_visible()


def test_a_part_of_an_image_is_repainted(service, page):
    """With every field of the mask."""
    choose(page, photo())
    painted(page)
    page.get_by_label("Masked content").select_option("noise")
    page.get_by_label("Mask blur").fill("8")
    page.get_by_label("Inpaint area").select_option("32")
    generate(page, "a house", steps=6)
    expect(image_of(page)).to_be_visible()
    made = latest(service)
    wanted = {"mask_fill": "noise", "mask_blur": 8, "mask_padding": 32, "mask_invert": False}
    assert wanted.items() <= made.items()
    assert made["mask"]["digest"] != made["image"]["digest"]
    expect(page.locator(".facts")).to_contain_text("MadeInpainted")


def test_an_image_is_extended(service, page):
    """The form shows the room that is added."""
    choose(page, photo(256, 256))
    page.get_by_text("Outpaint: extend the image").click()
    page.get_by_label("Right").fill("128")
    box = box_of(page.locator(".thumbnail"))
    assert box["width"] / box["height"] == pytest.approx(384 / 256, rel=0.02)
    generate(page, "a wide meadow", steps=6)
    expect(image_of(page)).to_be_visible()
    made = latest(service)
    assert made["pad"] == {"left": 0, "top": 0, "right": 128, "bottom": 0}
    assert (made["width"], made["height"]) == (384, 256)
    expect(page.locator(".facts")).to_contain_text("MadeOutpainted")


def test_a_second_larger_pass(service, page):
    """Its fields reach the request; the image has the larger size."""
    page.get_by_text("Hires: a second, larger pass").click()
    page.locator("[id='field-hires.scale']").fill("1.5")
    page.locator("[id='field-hires.steps']").fill("4")
    page.locator("[id='field-hires.strength']").fill("0.5")
    page.get_by_label("Enlarge").select_option("lanczos")
    expect(page.locator(".form")).to_contain_text("768 \N{MULTIPLICATION SIGN} 768 pixels")
    generate(page, "a large boat", steps=4)
    expect(image_of(page)).to_be_visible()
    made = latest(service)
    wanted = {"scale": 1.5, "steps": 4, "strength": 0.5, "resize": "lanczos"}
    assert wanted.items() <= made["hires"].items()
    size = image_of(page).evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
    assert size == [768, 768]
    expect(page.locator(".facts")).to_contain_text("MadeHires")
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("[id='field-hires.scale']")).to_have_value("1.5")
    expect(page.get_by_label("Enlarge")).to_have_value("lanczos")


def test_variations_of_a_seed(service, page):
    """The same seed takes the seed of the variation with it."""
    page.get_by_text("Variations of the seed").click()
    page.locator("#field-subseed_strength").fill("0.25")
    page.locator("#field-subseed").fill("7")
    generate(page, "a varied boat", steps=2, seed=5)
    expect(image_of(page)).to_be_visible()
    made = latest(service)
    assert (made["seed"], made["subseed"], made["subseed_strength"]) == (5, 7, 0.25)
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#field-subseed_strength")).to_have_value("0.25")
    expect(page.locator("#field-subseed")).to_have_value("")
    page.get_by_role("button", name="Same seed").click()
    expect(page.locator("#field-subseed")).to_have_value("7")


def test_a_result_is_the_next_input(service, page):
    """It is named, not sent: the service has its bytes."""
    generate(page, "first a sketch", steps=3)
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Use as input").click()
    expect(thumbnail(page)).to_be_visible()
    with page.expect_request(lambda request: request.method == "POST") as order:
        generate(page, "then a painting", steps=4)
    [first] = [
        job["id"]
        for job in requests.get(f"{service.url}/jobs", timeout=20).json()["jobs"]
        if job["metadata"] and job["metadata"]["prompt"] == "first a sketch"
    ]
    assert json.loads(order.value.post_data or "")["image"] == {"job": first, "index": 0}
    expect(image_of(page)).to_have_attribute("alt", "then a painting")
    assert latest(service)["image"]["width"] == 512


def test_a_result_that_the_service_has_lost_is_sent_from_the_browser(browser):
    """Its copy there is as good."""
    with ending(PageService()) as service, visiting(browser, service.url) as visit:
        page = visit.page
        generate(page, "an old sketch", steps=2)
        expect(image_of(page)).to_be_visible()
        page.get_by_role("button", name="Use as input").click()
        expect(thumbnail(page)).to_be_visible()
        for path in (service.folder / "data" / "results").iterdir():
            path.unlink()
        generate(page, "a new painting", steps=4)
        expect(image_of(page)).to_have_attribute("alt", "a new painting")


def test_a_service_that_keeps_nothing_takes_images_too(browser):
    """Results are sent back to it."""
    with ending(PageService(DATA_DIR="")) as service, visiting(browser, service.url) as visit:
        service.logged("model_loaded")
        page = visit.page
        generate(page, "not stored", steps=2)
        expect(image_of(page)).to_be_visible()
        page.get_by_role("button", name="Use as input").click()
        painted(page)
        sent = sent_by(page, "not stored either", steps=4)
        assert sent["image"].startswith(b"\x89PNG")
        assert "mask" in sent
        expect(image_of(page)).to_have_attribute("alt", "not stored either")
        expect(page.locator(".facts")).to_contain_text("MadeInpainted")
        page.reload()
        expect(page.get_by_role("button", name="not stored either. Inpainted")).to_be_visible()


def test_a_reload_keeps_the_image_and_its_mask(page):
    """Until it is removed."""
    choose(page, photo())
    painted(page)
    page.reload()
    expect(thumbnail(page)).to_be_visible()
    assert set(sent_by(page, "after a reload", steps=3)) >= {"image", "mask"}
    page.get_by_role("button", name="Remove the image").click()
    expect(thumbnail(page)).to_have_count(0)
    page.reload()
    expect(page.get_by_role("button", name="Start from an image")).to_be_visible()


def test_settings_are_used_again_with_their_image(page):
    """Image and mask come back with them, also after a reload; without them the page says so."""
    choose(page, photo())
    painted(page)
    before = sent_by(page, "with a mask", steps=3)
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    expect(thumbnail(page)).to_have_count(0)
    page.reload()
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_role("button", name="Change the mask")).to_be_visible()
    again = sent_by(page, "with a mask", steps=3)
    assert (again["image"], again["mask"]) == (before["image"], before["mask"])
    page.get_by_role("button", name="Reset").click()
    page.evaluate("indexedDB.deleteDatabase('sd-api.inputs')")
    page.reload()
    expect(image_of(page)).to_be_visible()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator(".notice")).to_contain_text("is not in this browser: choose it again")


def test_files_are_dropped_and_pasted_as_input(page):
    """A pasted image with settings fills the form; one without is the input."""
    expect(page.locator("#field-steps")).to_be_visible()
    file = photo(kind="JPEG")
    drop(page, "Start from this image", file["name"], file["buffer"])
    expect(page.get_by_alt_text("Input image: meadow.jpeg")).to_be_visible()
    page.get_by_role("button", name="Remove the image").click()
    page.evaluate(
        """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            const event = {clipboardData: data, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new ClipboardEvent("paste", event));
        }""",
        ["pasted.jpeg", list(file["buffer"])],
    )
    expect(page.get_by_alt_text("Input image: pasted.jpeg")).to_be_visible()


def test_what_is_no_image_is_refused(page):
    """By the page where it cannot show it, by the service where it does not take it."""
    expect(page.locator("#field-steps")).to_be_visible()
    drop(page, "Start from this image", "words.png", b"no image at all")
    expect(page.locator(".notice")).to_contain_text("words.png cannot be shown here")
    choose(page, {"name": "a.gif", "mimeType": "image/gif", "buffer": gif()})
    generate(page, "from a kind that is not taken")
    expect(page.locator("#fault-image")).to_contain_text("PNG")
    choose(page, photo())
    expect(page.locator("#fault-image")).to_have_count(0)


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("P", (64, 64)).save(file, "GIF")
    return file.getvalue()


def test_faults_of_nested_fields_stand_at_them(page):
    """The fold opens, and the field has the focus."""
    page.get_by_text("Hires: a second, larger pass").click()
    page.locator("[id='field-hires.scale']").fill("9")
    generate(page, "too large")
    expect(page.locator("[id='fault-hires.scale']")).to_be_visible()
    expect(page.locator("[id='field-hires.scale']")).to_be_focused()


@pytest.mark.parametrize(
    ("language", "run"),
    [
        ("curl", ["bash", "-euo", "pipefail"]),
        ("Python", [sys.executable]),
        ("JavaScript", ["node"]),
    ],
)
def test_the_request_as_code_sends_the_files_next_to_it(service, page, tmp_path, language, run):
    """They are offered with the code; the images are the same."""
    choose(page, photo())
    painted(page)
    page.get_by_text("Outpaint: extend the image").click()
    page.get_by_label("Bottom").fill("64")
    page.get_by_label("Prompt", exact=True).fill('it\'s "code"; $HOME @x')
    page.locator("#field-steps").fill("4")
    page.locator("#field-seed").fill("11")
    page.get_by_role("button", name="As code").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=language).click()
    for name in ("input.png", "mask.png"):
        with page.expect_download() as coming:
            dialog.get_by_role("link", name=name).click()
        coming.value.save_as(tmp_path / name)
    (tmp_path / "made.mjs").write_text(page.locator("dialog pre").inner_text(), encoding="utf-8")
    page.keyboard.press("Escape")
    subprocess.run([*run, "made.mjs"], cwd=tmp_path, check=True, timeout=60)
    generate(page, 'it\'s "code"; $HOME @x')
    expect(image_of(page)).to_be_visible()
    job = requests.get(f"{service.url}/jobs?limit=1", timeout=20).json()["jobs"][0]
    shown = requests.get(f"{service.url}/jobs/{job['id']}/image", timeout=20).content
    [file] = tmp_path.glob("image*.png")
    assert pixels(file.read_bytes()) == pixels(shown)


def pixels(data: bytes) -> bytes:
    """Return what an image shows, without the texts in its file."""
    return Image.open(io.BytesIO(data)).tobytes()
