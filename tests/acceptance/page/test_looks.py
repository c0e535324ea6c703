"""Nobody is left out: axe-core, the keyboard, phones, light and dark; what the page weighs."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.client_packages import needed
from tests.support.page.browser import (
    PHONE,
    PageService,
    generate,
    image_of,
    transferred,
    violations,
    visiting,
)
from tests.support.service_process import ending

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light", "has_touch": True, "is_mobile": True},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark", "has_touch": True},
}
LONG = pytest.mark.long
FEW, OTHERS = ("light", "dark", "phone"), ("dark phone",)
"""Looks of the short run: both colours and both shapes; and what is left."""

MOST_PACKED = 70_000
MOST_PLAIN = 160_000
"""Bytes of the page and its files, as they come with their headers and as they are."""


@needed
@pytest.mark.parametrize("look", [*FEW, *(pytest.param(each, marks=LONG) for each in OTHERS)])
def test_axe_finds_nothing_wrong(browser, service, look):
    """WCAG A and AA in each state of the page: 0 violations."""
    found: dict[str, list[str]] = {}
    with visiting(browser, service.url, **LOOKS[look]) as visit:
        page = visit.page

        def checked(state: str) -> None:
            found[state] = violations(page)

        expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        page.locator(".results").wait_for()
        checked("as it is opened")
        if "phone" in look:
            page.get_by_role("heading", name="Settings").click()
        page.get_by_label("Add a LoRA").select_option("ink")
        page.get_by_text("More", exact=True).click()
        checked("all settings")
        page.get_by_role("button", name="Remove ink").click()
        generate(page, "a boat", steps=2)
        expect(image_of(page)).to_be_visible()
        checked("finished")
        image_of(page).click()
        checked("alone")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="As code").last.click()
        checked("code")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Ready").click()
        expect(page.locator("#panel")).to_contain_text("Up for")
        checked("panel")
        page.get_by_role("button", name="Ready").click()
        generate(page, "this fails")
        expect(page.get_by_role("heading", name="No image this time")).to_be_visible()
        checked("failed")
        generate(page, "a boat", width=300)
        expect(page.locator("#fault-width")).to_be_visible()
        checked("a wrong field")
    assert {state: faults for state, faults in found.items() if faults} == {}


@needed
@pytest.mark.parametrize("look", [pytest.param("light", marks=LONG), "dark"])
def test_axe_finds_nothing_wrong_while_it_works(browser, slow, look):
    """Empty, in work, waiting and cancelled."""
    found: dict[str, list[str]] = {}
    with visiting(browser, slow.url, **LOOKS[look]) as visit:
        page = visit.page
        expect(page.locator(".stage")).to_be_visible()
        found["empty"] = violations(page)
        generate(page, "a boat", steps=50)
        expect(page.get_by_alt_text("Preview of the unfinished image")).to_be_visible()
        found["in work"] = violations(page)
        generate(page, "one more")
        expect(page.locator(".progress")).to_contain_text("Waiting, place 1")
        found["waiting"] = violations(page)
        for prompt in ("one more", "a boat"):
            page.get_by_role("button", name=f"{prompt}.").click()
            page.get_by_role("button", name="Cancel", exact=True).click()
            expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
        found["cancelled"] = violations(page)
    assert {state: faults for state, faults in found.items() if faults} == {}


@needed
def test_axe_finds_nothing_wrong_with_the_question_for_a_key(browser):
    """Also after a wrong one."""
    with ending(PageService(API_KEYS="anna:0123456789abcdef0123456789abcdef")) as locked:
        locked.logged("model_loaded")
        for look in ("light", "dark", "phone"):
            with visiting(browser, locked.url, **LOOKS[look]) as visit:
                page = visit.page
                expect(page.get_by_role("dialog")).to_be_visible()
                assert violations(page) == []
                page.get_by_role("textbox", name="API key").fill("a wrong one")
                page.keyboard.press("Enter")
                expect(page.get_by_role("alert")).to_be_visible()
                assert violations(page) == []


@pytest.mark.parametrize(
    "width", [320, 768, 2560, *(pytest.param(each, marks=LONG) for each in (390, 1024, 1440))]
)
def test_nothing_is_cut_off_at_any_width(browser, service, width):
    """No page is wider than its window, 320 pixels included (WCAG 1.4.10)."""
    with visiting(browser, service.url, viewport={"width": width, "height": 800}) as visit:
        page = visit.page
        generate(page, "a boat with a very long name: " + "x" * 200)
        expect(image_of(page)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_phones_have_the_image_below_the_button(browser, service):
    """The settings are folded away there, and unfold."""
    with visiting(browser, service.url, **LOOKS["phone"]) as visit:
        page = visit.page
        expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        expect(page.locator("#field-steps")).not_to_be_visible()
        page.get_by_role("heading", name="Settings").tap()
        expect(page.locator("#field-steps")).to_be_visible()


def test_colours_can_be_chosen(browser, service):
    """The choice stays; without one the system's holds."""
    with visiting(browser, service.url, color_scheme="dark") as visit:
        page = visit.page
        ground = "getComputedStyle(document.body).backgroundColor"
        expect(page.locator("#field-steps")).to_be_visible()
        dark = page.evaluate(ground)
        page.get_by_role("button", name=re.compile("^Colours: auto")).click()
        page.get_by_role("button", name=re.compile("^Colours: light")).wait_for()
        assert page.evaluate(ground) != dark
        page.reload()
        page.get_by_role("button", name=re.compile("^Colours: light")).click()
        page.get_by_role("button", name=re.compile("^Colours: dark")).wait_for()
        assert page.evaluate(ground) == dark


def test_everything_can_be_reached_by_the_keyboard(browser, service):
    """In the order of the page, with a focus that can be seen, and nothing holds it."""
    with visiting(browser, service.url) as visit:
        page = visit.page
        generate(page, "a boat", steps=2)
        expect(image_of(page)).to_be_visible()
        page.reload()
        expect(image_of(page)).to_be_visible()
        script = """() => {
            const at = document.activeElement;
            const shown = getComputedStyle(at).outlineStyle !== "none";
            if (at === document.body) return ["", true];
            const label = at.ariaLabel || at.labels?.[0]?.innerText || at.innerText || at.tagName;
            return [label.trim().split("\\n")[0], shown];
        }"""
        reached = []
        for _ in range(80):
            page.keyboard.press("Tab")
            label, shown = page.evaluate(script)
            if not label:
                break
            reached.append(label)
            assert shown, label
        first = ("Ready", "API", "Prompt", "Generate", "Start from an image")
        then = ("Settings", "Model", "Square", "Steps", "Sampler", "Add a LoRA", "More", "Reset")
        last = ("Show the image alone", "Use these settings", "Same seed", "Use as input", "a boat")
        wanted = {*first, *then, *last}
        assert wanted <= set(reached)
        places = [reached.index(each) for each in (*first, *then, *last)]
        assert places == sorted(places)


IMAGES = ".tile.succeeded img"
LISTED = """() => performance.getEntriesByType("resource")
    .some((each) => new URL(each.name).pathname === "/jobs" && each.responseEnd)"""
KEPT = """async (count) => {
    const opening = indexedDB.open("sd-api");
    await new Promise((resolve) => { opening.onsuccess = resolve; });
    const reading = opening.result.transaction("jobs").objectStore("jobs").getAll();
    await new Promise((resolve) => { reading.onsuccess = resolve; });
    opening.result.close();
    return reading.result.flatMap((each) => each.images).length === count;
}"""
"""Whether the browser keeps as many images as the page shows."""


def settled(page: Page) -> None:
    """Wait until the page has its list of jobs, and the image of each that succeeded."""
    expect(page.locator(".stage")).to_be_visible()
    page.wait_for_function(LISTED)
    page.wait_for_load_state("networkidle")
    expect(page.locator(".tile.succeeded:not(:has(img))")).to_have_count(0)


def test_the_page_is_light_and_asks_little(browser, service):
    """One request a file, once; then five a visit, and nothing to anybody else."""
    with visiting(browser, service.url) as visit:
        page = visit.page
        settled(page)
        page.wait_for_function(KEPT, arg=page.locator(IMAGES).count())
        first = [each for each in transferred(page) if not each["url"].startswith("blob:")]
        # What comes out of the cache at once, such as a second use of the icon, has no bytes.
        sent = [each for each in first if each["sent"]]
        files = [each for each in sent if "/page/" in each["url"] or each["url"] == page.url]
        assert sum(each["sent"] for each in files) < MOST_PACKED
        assert sum(each["size"] for each in files) < MOST_PLAIN
        assert len({each["url"] for each in files}) == len(files)
        visit.requests.clear()
        page.reload()
        settled(page)
        again = [each for each in transferred(page) if each["sent"]]
        paths = sorted({urlsplit(each["url"]).path for each in again})
        assert paths == ["/", "/health", "/jobs", "/models", "/models/adapters"]


def test_the_page_works_below_a_prefix(browser, service):
    """Its addresses are relative, so a proxy that takes a prefix off needs to say nothing."""
    home = service.url

    def proxied(route: Route) -> None:
        path = route.request.url.removeprefix(f"{home}/sd")
        route.fulfill(response=route.fetch(url=f"{home}{path}"))

    with visiting(browser, f"{home}/health/live") as visit:
        page = visit.page
        visit.context.route(f"{home}/sd/**", proxied)
        page.goto(f"{home}/sd/")
        generate(page, "below a prefix", steps=2)
        expect(image_of(page)).to_be_visible()
        asked = [urlsplit(each).path for each in visit.requests if not each.startswith("blob:")]
        assert {path for path in asked if not path.startswith("/sd/")} == {"/health/live"}
