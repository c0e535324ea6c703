"""The page makes images: sent, watched, cancelled, refused."""

import re
from typing import Any

import requests
from playwright.sync_api import expect

from tests.support.page.browser import PageService, generate, image_of, visiting
from tests.support.service_process import ending


def jobs(service: PageService, state: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{service.url}/jobs?state={state}", timeout=20)
    found: list[dict[str, Any]] = answer.json()["jobs"]
    return found


def test_an_image_is_made_and_watched(page):
    """By the keyboard alone: preview and steps while it runs, then the image and its facts."""
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a lighthouse at dusk")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_alt_text("Preview of the unfinished image")).to_be_visible()
    expect(page.locator(".progress")).to_contain_text(re.compile(r"Step \d+ of 20"))
    expect(image_of(page)).to_be_visible()
    size = image_of(page).evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
    assert size == [512, 512]
    facts = page.locator(".facts")
    for text in ("512 \N{MULTIPLICATION SIGN} 512", "DPM++ 2M", "7.5", "Seed"):
        expect(facts).to_contain_text(text)
    expect(page.get_by_role("status").last).to_have_text("The image is finished.")


def test_the_metrics_tell_the_page_from_other_clients(service, page):
    """Its requests have a label of their own."""
    generate(page, "counted", steps=1)
    expect(image_of(page)).to_be_visible()
    lines = requests.get(f"{service.url}/metrics", timeout=20).text.splitlines()
    wanted = ('api="page"', 'method="POST"', 'route="/jobs"', 'status="202"')
    found = [line for line in lines if line.startswith("sd_http_requests_total{")]
    counts = [line for line in found if all(each in line for each in wanted)]
    assert len(counts) == 1
    assert float(counts[0].rpartition(" ")[2]) >= 1


def test_what_the_form_says_is_what_is_made(service, page):
    """Every field of the form reaches the request; what is left empty is the model's default."""
    page.get_by_role("button", name="Portrait").click()
    page.get_by_label("Negative prompt").fill("fog")
    page.get_by_label("Sampler").select_option("euler_a")
    page.get_by_label("Schedule").select_option("karras")
    page.get_by_role("button", name="2", exact=True).click()
    generate(page, "a (red:1.2) fox", steps=5, guidance_scale=6, seed=42)
    expect(image_of(page)).to_be_visible()
    made = jobs(service, "succeeded")[0]["metadata"]
    sent = {
        "prompt": "a (red:1.2) fox",
        "negative_prompt": "fog",
        "prompt_syntax": "a1111",
        "width": 448,
        "height": 640,
        "steps": 5,
        "guidance_scale": 6,
        "seed": 42,
        "sampler": "euler_a",
        "schedule": "karras",
        "num_images": 2,
        "seeds": [42, 43],
    }
    assert sent.items() <= made.items()
    expect(page.get_by_role("button", name="a (red:1.2) fox")).to_have_count(2)


def test_an_adapter_is_chosen_with_its_weight_and_words(service, page):
    """Its trigger words go into the prompt, and out of it again."""
    page.get_by_label("Prompt", exact=True).fill("a boat")
    page.get_by_label("Add a LoRA").select_option("ink")
    page.get_by_label("Weight of ink", exact=True).fill("0.6")
    word = page.locator(".adapter .chip").first
    word.click()
    text = word.inner_text()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(f"a boat, {text}")
    page.get_by_role("button", name="Generate").click()
    expect(image_of(page)).to_be_visible()
    made = jobs(service, "succeeded")[0]["metadata"]
    assert made["adapters"] == [{"name": "ink", "weight": 0.6, "text_weight": 0.6}]
    word.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a boat")
    page.get_by_role("button", name="Remove ink").click()
    expect(page.locator(".adapter")).to_have_count(0)


def test_a_wrong_value_is_marked_at_its_field(page):
    """The service says what it must be; the field gets the focus."""
    generate(page, "a boat", width=300)
    field = page.locator("#field-width")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#fault-width")).to_contain_text("multiple of 64")
    expect(page.get_by_role("alert")).to_contain_text("Correct the marked fields")
    field.fill("320")
    expect(page.locator("#fault-width")).to_have_count(0)


def test_a_prompt_is_asked_for_without_the_service(page):
    """Nothing is sent for an empty prompt."""
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.locator("#fault-prompt")).to_have_text("Say what the image shows.")


def test_a_failed_job_says_why_and_what_to_do(page):
    """And can be tried again."""
    generate(page, "this fails")
    expect(page.get_by_role("heading", name="No image this time")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_text("The model returned no numbers.")
    expect(page.locator(".frame")).to_contain_text("Try again")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".tile.failed")).to_have_count(1)


def test_a_job_can_be_finished_now(browser, slow):
    """The image is shown as it is after the step, and says that it is unfinished."""
    with visiting(browser, slow.url) as visit:
        page = visit.page
        generate(page, "soon enough", steps=50)
        expect(page.locator(".progress")).to_contain_text(re.compile("Step [2-9]"))
        page.get_by_role("button", name="Finish now").click()
        expect(image_of(page)).to_be_visible()
        expect(page.locator(".facts")).to_contain_text(
            re.compile(r"Steps\d+ of 50, finished early")
        )
    [job] = [each for each in jobs(slow, "succeeded") if each["metadata"]["interrupted"]]
    assert job["steps"] == 50


def test_several_jobs_wait_and_each_can_be_cancelled(browser, slow):
    """The place in the queue is shown; a full queue is refused in words."""
    with visiting(browser, slow.url) as visit:
        page = visit.page
        generate(page, "the first", steps=50)
        expect(page.locator(".progress")).to_contain_text("Step")
        for place in (1, 2):
            generate(page, f"waiting {place}")
            expect(page.locator(".progress")).to_contain_text(f"Waiting, place {place}")
            expect(page.locator(".progress")).to_contain_text("starts in about")
        generate(page, "one too many")
        expect(page.get_by_role("alert")).to_contain_text("2 requests are waiting")
        expect(page.locator(".frame")).to_contain_text("The queue is full: wait a moment")
        page.get_by_role("button", name="Remove").click()
        expect(page.get_by_role("button", name="one too many")).to_have_count(0)
        for prompt in ("waiting 2", "waiting 1", "the first"):
            page.get_by_role("button", name=f"{prompt}.").click()
            page.get_by_role("button", name="Cancel", exact=True).click()
            expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    assert len(jobs(slow, "cancelled")) >= 3


def test_the_panel_shows_the_service_as_it_is(browser, slow):
    """Queue, engine, memory and model, while the panel is open."""
    with visiting(browser, slow.url) as visit:
        page = visit.page
        page.get_by_role("button", name="Ready").click()
        panel = page.locator("#panel")
        for text in ("0 of 2 places taken", "ready", "no GPU", "fake (fake-1)", "cpu, float32"):
            expect(panel).to_contain_text(text)
        for prompt in ("a boat", "a cat"):
            generate(page, prompt, steps=50)
        expect(panel).to_contain_text("1 of 2 places taken")
        expect(page.locator(".pill")).to_have_text("Ready · 1 running · 1 waiting")
        for prompt in ("a cat", "a boat"):
            page.get_by_role("button", name=f"{prompt}.").click()
            page.get_by_role("button", name="Cancel", exact=True).click()
        expect(panel).to_contain_text("0 of 2 places taken")


def test_jobs_of_the_page_have_no_more_streams_than_a_browser_can_bear(browser, slow):
    """Six connections are all there are: the page stays usable with three jobs in two tabs."""
    with visiting(browser, slow.url) as visit:
        first, second = visit.page, visit.open()
        for prompt in ("one", "two", "three"):
            generate(first, prompt, steps=10)
            expect(second.get_by_role("button", name=f"{prompt}.")).to_be_visible()
        for page in (first, second):
            page.get_by_role("button", name="Ready").click()
            expect(page.locator("#panel")).to_contain_text("Up for")
        for prompt in ("one", "two", "three"):
            first.get_by_role("button", name=prompt).click()
            expect(image_of(first)).to_be_visible()


def test_with_the_safety_checker_there_are_steps_but_no_previews(browser):
    """Small as it is, a preview would show what the checker is there to hide."""
    with ending(PageService(SAFETY_CHECKER="true")) as service:
        service.logged("model_loaded")
        with visiting(browser, service.url) as visit:
            page = visit.page
            generate(page, "checked", steps=50)
            expect(page.locator(".progress")).to_contain_text("Step")
            expect(page.get_by_alt_text("Preview of the unfinished image")).to_have_count(0)
            expect(image_of(page)).to_be_visible()
