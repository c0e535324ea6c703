"""Where the service has keys, the page asks for one and keeps it as it was told to."""

import pytest
import requests
from playwright.sync_api import expect

from tests.support.page.browser import PageService, generate, image_of, visiting
from tests.support.page.uploads import choose, photo
from tests.support.service_process import ending

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


@pytest.fixture(scope="module")
def locked():
    """Return a service with two keys."""
    keys = f"anna:{KEY},otto:{OTHER}"
    with ending(PageService(API_KEYS=keys)) as started:
        started.logged("model_loaded")
        yield started


def enter(page, key: str, *, keep: bool = False) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("API key", exact=True).fill(key)
    dialog.get_by_role("checkbox").set_checked(keep)
    dialog.get_by_role("button", name="Use this key").click()


def stored(page) -> dict[str, list[str]]:
    """Return the names of what the browser keeps: tab, profile, jobs, images to start from."""
    script = """async () => {
        const keys = async (name, store) => {
            const database = await new Promise((done) => {
                const opening = indexedDB.open(name);
                opening.onsuccess = () => done(opening.result);
            });
            return new Promise((done) => {
                const asked = database.transaction(store).objectStore(store).getAllKeys();
                asked.onsuccess = () => done(asked.result);
            });
        };
        return {
            tab: Object.keys(sessionStorage),
            profile: Object.keys(localStorage),
            jobs: await keys("sd-api", "jobs"),
            inputs: await keys("sd-api.inputs", "inputs"),
        };
    }"""
    found: dict[str, list[str]] = page.evaluate(script)
    return found


def test_a_key_is_asked_for_and_a_wrong_one_is_refused(browser, locked):
    """In words; nothing else of the service shows before."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        expect(page.get_by_role("dialog", name="API key")).to_be_visible()
        enter(page, "wrong" * 8)
        expect(page.get_by_role("alert")).to_contain_text("key")
        expect(page.get_by_role("button", name="Generate")).to_be_disabled()
        enter(page, KEY)
        expect(page.locator("#field-steps")).to_be_visible()
        generate(page, "with a key", steps=3)
        expect(image_of(page)).to_be_visible()


def test_a_dialog_that_was_closed_can_be_opened_again(browser, locked):
    """The page says what is missing."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".banner")).to_contain_text("needs a key")
        page.get_by_role("button", name="API key").click()
        enter(page, KEY)
        expect(page.locator(".banner")).to_have_count(0)


def test_a_key_of_the_tab_is_forgotten_with_it(browser, locked):
    """A reload keeps it; another tab asks again; no image is kept in the browser."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        enter(page, KEY)
        generate(page, "of this tab", steps=3)
        expect(image_of(page)).to_be_visible()
        choose(page, photo())
        found = stored(page)
        assert found["tab"] == ["sd-api.key"]
        assert "sd-api.key" not in found["profile"]
        assert (found["jobs"], found["inputs"]) == ([], [])
        page.reload()
        expect(page.get_by_role("button", name="of this tab").first).to_be_visible()
        another = visit.open()
        expect(another.get_by_role("dialog", name="API key")).to_be_visible()
        another.close()


def test_a_kept_key_is_kept_until_it_is_forgotten(browser, locked):
    """With the images; forgetting deletes both."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        enter(page, KEY, keep=True)
        generate(page, "kept", steps=3)
        expect(image_of(page)).to_be_visible()
        choose(page, photo())
        another = visit.open()
        expect(another.get_by_role("button", name="kept").first).to_be_visible()
        another.close()
        assert len(stored(page)["jobs"]) >= 1
        assert len(stored(page)["inputs"]) == 1
        page.get_by_role("button", name="API key").click()
        page.get_by_role("button", name="Forget the key and my images").click()
        expect(page.get_by_role("dialog", name="API key")).to_be_visible()
        expect(page.locator(".tile")).to_have_count(0)
        expect(page.locator(".thumbnail")).to_have_count(0)
        found = stored(page)
        assert (found["tab"], found["jobs"], found["inputs"]) == ([], [], [])
        assert not {"sd-api.key", "sd-api.input"} & set(found["profile"])


def test_one_key_does_not_see_what_another_made(browser, locked):
    """Neither on the service nor in the browser."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        enter(page, KEY, keep=True)
        generate(page, "of anna", steps=3)
        expect(image_of(page)).to_be_visible()
        page.get_by_role("button", name="API key").click()
        enter(page, OTHER, keep=True)
        expect(page.locator(".tile")).to_have_count(0)
        page.reload()
        expect(page.locator("#field-steps")).to_be_visible()
        expect(page.locator(".tile")).to_have_count(0)


def test_the_key_is_in_no_address_and_code_has_a_place_for_it(browser, locked):
    """It is sent as a header, also for events and images."""
    with visiting(browser, locked.url) as visit:
        page = visit.page
        enter(page, KEY)
        generate(page, "secret", steps=3)
        expect(image_of(page)).to_be_visible()
        page.get_by_role("button", name="As code").first.click()
        expect(page.locator("dialog pre")).to_contain_text("Authorization: Bearer $SD_API_KEY")
        assert not any(KEY in each for each in visit.requests)


def test_a_key_that_is_withdrawn_is_asked_for_again(browser, tmp_path):
    """In the middle of the work."""
    keys = tmp_path / "keys"
    keys.write_text(f"anna:{KEY}\n", encoding="utf-8")
    keys.chmod(0o600)
    with ending(PageService(API_KEYS_FILE=keys)) as service:
        service.logged("model_loaded")
        with visiting(browser, service.url) as visit:
            enter(visit.page, KEY)
            expect(visit.page.locator("#field-steps")).to_be_visible()
            keys.write_text(f"otto:{OTHER}\n", encoding="utf-8")
            service.logged("keys_read")
            answer = requests.get(f"{service.url}/jobs", headers={"X-API-Key": KEY}, timeout=20)
            assert answer.status_code == 401
            generate(visit.page, "one more")
            dialog = visit.page.get_by_role("dialog", name="API key")
            expect(dialog.get_by_role("alert")).to_be_visible()
