"""The brush paints the mask that is sent: by mouse, finger and keyboard, with undo."""

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.page.browser import PHONE, violations, visiting
from tests.support.page.uploads import box_of, choose, mask_in, photo, sent_by, stroke


def opened(page: Page, width: int = 512, height: int = 384) -> Locator:
    """Choose an image, open the brush, and return the board that is painted on."""
    choose(page, photo(width, height))
    page.get_by_role("button", name="Paint a mask").click()
    board = page.get_by_role("application", name="Mask of the image")
    expect(board).to_be_focused()
    return board


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("dialog").get_by_role("button", name=name)


def sent(page: Page) -> dict[str, bytes]:
    """Close the brush, generate, and return what the page sends."""
    button(page, "Done").click()
    return sent_by(page, "a house on the meadow")


def test_what_is_painted_is_the_white_part_of_the_mask(page):
    """In the size of the image, whatever size it has on the screen."""
    stroke(opened(page), (0.25, 0.5), (0.75, 0.5))
    found = sent(page)
    mask = mask_in(found)
    assert mask.size == (512, 384)
    painted = [mask.getpixel((x, 192)) for x in (128, 256, 384)]
    around = [mask.getpixel(at) for at in ((10, 192), (502, 192), (256, 100), (256, 284))]
    assert (painted, around) == ([255] * 3, [0] * 4)
    assert found["image"] == photo()["buffer"]


def test_strokes_are_taken_back_and_done_again(page):
    """One by one, by button and by key; clearing is taken back, too."""
    board = opened(page)
    stroke(board, (0.2, 0.5))
    stroke(board, (0.8, 0.5))
    button(page, "Clear the mask").click()
    expect(button(page, "Clear the mask")).to_be_disabled()
    button(page, "Undo").click()
    page.keyboard.press("Control+z")
    button(page, "Undo").click()
    expect(button(page, "Undo")).to_be_disabled()
    button(page, "Redo").click()
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+z")
    expect(button(page, "Redo")).to_be_enabled()
    mask = mask_in(sent(page))
    assert [mask.getpixel((x, 192)) for x in (102, 410)] == [255, 0]


def test_the_eraser_and_the_size_of_the_brush(page):
    """A thick stroke with a thin one out of its middle."""
    board = opened(page)
    page.get_by_label("Size", exact=True).fill("120")
    stroke(board, (0.2, 0.5), (0.8, 0.5))
    button(page, "Eraser").click()
    page.get_by_label("Size", exact=True).fill("20")
    stroke(board, (0.2, 0.5), (0.8, 0.5))
    mask = mask_in(sent(page))
    assert [mask.getpixel((256, y)) for y in (100, 150, 192, 234, 284)] == [0, 255, 0, 255, 0]


def test_the_mask_can_be_inverted(page):
    """The service is told so; the mask is sent as it was painted."""
    stroke(opened(page), (0.5, 0.5))
    page.get_by_role("checkbox", name="Invert the mask").check()
    found = sent(page)
    assert found["mask_invert"] == b"true"
    assert mask_in(found).getpixel((256, 192)) == 255


def test_the_brush_works_by_the_keyboard_alone(page):
    """Arrows move it, Space starts and ends a stroke, brackets change its size."""
    board = opened(page)
    for _ in range(4):
        page.keyboard.press("]")
    page.keyboard.press("Space")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    expect(board).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    mask = mask_in(sent_by(page, "a house"))
    assert [mask.getpixel(at) for at in ((256, 192), (360, 192), (150, 192), (360, 320))] == [
        255,
        255,
        0,
        0,
    ]


def test_a_finger_paints_on_a_phone(browser, service):
    """The page does not scroll under it, and everything is within the window."""
    phone: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    with visiting(browser, service.url, **phone) as visit:
        page = visit.page
        board = opened(page, width=384, height=512)
        box = box_of(board)
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
        expect(button(page, "Undo")).to_be_enabled()
        done = box_of(button(page, "Done"))
        assert done["y"] + done["height"] <= PHONE["height"]
        button(page, "Done").tap()
        expect(page.get_by_role("button", name="Change the mask")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(1600, 400), (400, 1600), (64, 64), (4000, 3000)])
def test_images_of_any_shape_fit_into_the_window(page, width, height):
    """Masks of large images have at most 2,048 pixels a side."""
    board = opened(page, width=width, height=height)
    box = box_of(board)
    assert box["height"] < 900
    assert box["width"] < 1440
    assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.02)
    stroke(board, (0.5, 0.5))
    mask = mask_in(sent(page))
    assert max(mask.size) == min(max(width, height), 2048)
    assert mask.getpixel((mask.width // 2, mask.height // 2)) == 255


def test_axe_finds_nothing_wrong_with_the_brush(browser, service):
    """Light, dark and on a phone."""
    for look in ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": PHONE}):
        with visiting(browser, service.url, **look) as visit:
            stroke(opened(visit.page), (0.3, 0.4), (0.7, 0.4))
            assert violations(visit.page) == []
            button(visit.page, "Done").click()
            assert violations(visit.page) == []
