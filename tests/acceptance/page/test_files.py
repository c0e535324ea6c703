"""Settings are read from the images of this service and of other tools, in the browser."""

import io
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

from service.images.infotext import exif
from tests.support.page.browser import PageService
from tests.support.page.uploads import choose, drop, photo

USER_COMMENT = 0x9286
EXIF_FOLDER = 0x8769
A1111 = """a (castle:1.2), <lora:ink:0.5>
on a hill
Negative prompt: blurry, "fog"
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 4242, Size: 384x512, \
Model hash: abc, Model: some/other, Clip skip: 2, Lora hashes: "ink: 0cf9, x: 1", Version: v1.9.4"""


def dropped(page, name: str, data: bytes) -> None:
    """Drop a file on the page for its settings."""
    drop(page, "Use its settings", name, data)


def values(page) -> dict[str, str]:
    """Return what the fields of the form hold."""
    names = ("prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "seed")
    others = ("sampler", "schedule", "clip_skip", "prompt_syntax")
    return {name: page.locator(f"#field-{name}").input_value() for name in (*names, *others)}


def picture(kind: str, text: str, **options: Any) -> bytes:
    """Return a small image with a text where its kind has one."""
    file, image = io.BytesIO(), Image.new("RGB", (64, 64), "teal")
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("parameters", text, **options)
        image.save(file, "PNG", pnginfo=chunks)
    else:
        image.save(file, kind, exif=options.get("exif") or exif(text))
    return file.getvalue()


def little_endian(text: str) -> bytes:
    """Return Exif as some tools write it: the other order of bytes."""
    found = Image.Exif()
    found.get_ifd(EXIF_FOLDER)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-le")
    return found.tobytes()


EXPECTED = {
    "prompt": "a (castle:1.2), <lora:ink:0.5>\non a hill",
    "negative_prompt": 'blurry, "fog"',
    "width": "384",
    "height": "512",
    "steps": "28",
    "guidance_scale": "6.5",
    "seed": "4242",
    "sampler": "dpmpp_2m",
    "schedule": "karras",
    "clip_skip": "2",
    "prompt_syntax": "a1111",
}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", picture("PNG", A1111)),
        ("packed.png", picture("PNG", A1111, zip=True)),
        ("a.webp", picture("WEBP", A1111)),
        ("a.jpg", picture("JPEG", A1111)),
        ("other.jpg", picture("JPEG", A1111, exif=little_endian(A1111))),
    ],
    ids=["png", "packed png", "webp", "jpeg", "jpeg of another order"],
)
def test_files_of_other_tools_fill_the_form(page, name, data):
    """Old names of samplers, too; what is unknown here is named."""
    expect(page.locator("#field-steps")).to_be_visible()
    dropped(page, name, data)
    notice = page.locator(".notice")
    expect(notice).to_contain_text("The form has the settings of that image.")
    expect(notice).to_contain_text("Not known here: the model some/other.")
    assert values(page) == EXPECTED


def test_second_passes_and_variations_of_other_tools_fill_the_form(page):
    """The strength is that of the second pass where there is one, else of the input image.

    The text has 7 steps that were done: 0.55 of 13.
    """
    expect(page.locator("#field-steps")).to_be_visible()
    begun = "a boat\nSteps: 9, Seed: 1, CFG scale: 5, Denoising strength: 0.55"
    second = "Hires upscale: 1.5, Hires steps: 7, Hires upscaler: Lanczos"
    varied = "Variation seed: 12, Variation seed strength: 0.3"
    dropped(page, "two.png", picture("PNG", f"{begun}, {second}, {varied}"))
    names = ("hires.scale", "hires.steps", "hires.strength", "subseed", "subseed_strength")
    found = {name: page.locator(f"[id='field-{name}']").input_value() for name in names}
    assert list(found.values()) == ["1.5", "13", "0.55", "12", "0.3"]
    expect(page.get_by_label("Enlarge")).to_have_value("lanczos")
    dropped(page, "one.png", picture("PNG", begun))
    choose(page, photo())
    expect(page.locator("#field-strength")).to_have_value("0.55")


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_images_of_this_service_fill_the_form(service: PageService, page, kind):
    """A file that was saved from here makes the same image again."""
    order = {
        "prompt": "ein Möwenflug, \N{SNOWFLAKE}",
        "negative_prompt": "fog",
        "steps": 4,
        "width": 320,
        "height": 256,
        "seed": 31,
        "sampler": "euler_a",
        "schedule": "karras",
        "guidance_scale": 5.5,
        "prompt_syntax": "a1111",
        "clip_skip": 2,
    }
    made = requests.post(
        f"{service.url}/generate", json=order, headers={"Accept": f"image/{kind}"}, timeout=60
    )
    expect(page.locator("#field-steps")).to_be_visible()
    dropped(page, f"mine.{kind}", made.content)
    expect(page.locator(".notice")).to_contain_text("The form has the settings of that image.")
    assert values(page) == {name: str(order[name]) for name in EXPECTED}


def test_a_file_can_be_chosen_and_one_without_settings_says_so(page, tmp_path: Path):
    """By the keyboard, without dragging."""
    expect(page.locator("#field-steps")).to_be_visible()
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    for name, text in (
        ("plain.png", "plain.png has no settings in it."),
        ("a.png", "The form has"),
    ):
        if name == "a.png":
            (tmp_path / name).write_bytes(picture("PNG", A1111))
        with page.expect_file_chooser() as asking:
            page.get_by_role("button", name="Read an image's settings").press("Enter")
        asking.value.set_files(tmp_path / name)
        expect(page.locator(".notice")).to_contain_text(text)
    assert values(page)["seed"] == "4242"


def test_a_pasted_text_fills_the_form(page):
    """Only one in that form: others are pasted as they are."""
    prompt = page.get_by_label("Prompt", exact=True)
    expect(page.locator("#field-steps")).to_be_visible()
    for text, expected in (("Steps: none of that", None), (A1111, EXPECTED["prompt"])):
        page.evaluate(
            """(text) => {
                const data = new DataTransfer();
                data.setData("text", text);
                const event = {clipboardData: data, bubbles: true, cancelable: true};
                const target = document.getElementById("field-prompt");
                target.dispatchEvent(new ClipboardEvent("paste", event));
            }""",
            text,
        )
        expect(page.locator(".notice")).to_have_count(0 if expected is None else 1)
    expect(prompt).to_have_value(EXPECTED["prompt"])


@pytest.mark.parametrize("cut", [9, 33, 60, 200])
def test_damaged_files_do_no_harm(page, cut):
    """A file that ends too early has no settings, and the page goes on."""
    expect(page.locator("#field-steps")).to_be_visible()
    for kind in ("PNG", "WEBP", "JPEG"):
        dropped(page, f"cut.{kind}", picture(kind, A1111)[:cut])
        expect(page.locator(".notice")).to_contain_text(f"cut.{kind} has no settings in it.")
