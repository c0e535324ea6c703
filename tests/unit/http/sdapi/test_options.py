"""``/sdapi/v1/options``: each caller has its own."""

import pytest

from service.config.addresses import Networks
from service.http.sdapi import options
from service.http.sdapi.options import OPTIONS, CallerOptions
from service.http.state import METRICS
from tests.support.samples import sample
from tests.unit.http.sdapi.asking import ALICE, BOB, KEYS, ask, basic, draw, info


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_everything_that_is_shown_can_be_sent_back(client):
    """Open WebUI does so, with one value changed."""
    shown = await ask(client, "GET", "options")
    assert shown["sd_model_checkpoint"].split(" [")[0] == "demo"
    assert shown["samples_format"] == "png"
    assert await ask(client, "POST", "options", json=shown) is None
    assert await ask(client, "POST", "options", json=shown | {"sd_checkpoint_hash": ""}) is None
    changed = shown | {"CLIP_stop_at_last_layers": 2}
    assert await ask(client, "POST", "options", json=changed) is None
    found = await ask(client, "GET", "options")
    late = {"sd_model_checkpoint", "sd_checkpoint_hash"}  # The hash becomes known meanwhile.
    assert {name: found[name] for name in found.keys() - late} == {
        name: changed[name] for name in changed.keys() - late
    }


async def test_options_are_those_of_later_requests(client):
    """Those of a request go before them, and stay only if it says so."""
    await ask(client, "POST", "options", json={"CLIP_stop_at_last_layers": 2.0})
    assert info(await draw(client))["clip_skip"] == 2
    other = {"CLIP_stop_at_last_layers": 3}
    assert info(await draw(client, override_settings=other))["clip_skip"] == 3
    assert info(await draw(client))["clip_skip"] == 2
    await draw(client, override_settings=other, override_settings_restore_afterwards=False)
    assert info(await draw(client))["clip_skip"] == 3


async def test_nobody_changes_the_options_of_another(serve):
    """With keys they belong to the key."""
    client = await serve(api_keys=KEYS)
    alice, bob = basic(ALICE), basic(BOB, "")
    set_to = {"CLIP_stop_at_last_layers": 2}
    await ask(client, "POST", "options", json=set_to, headers=alice)
    found = [await ask(client, "GET", "options", headers=each) for each in (alice, bob)]
    assert [each["CLIP_stop_at_last_layers"] for each in found] == [2, 1]


async def test_without_keys_they_belong_to_the_address(serve):
    """Behind a proxy, to that of the client."""
    client = await serve(trusted_proxies=Networks("127.0.0.1"))
    here, there = ({"X-Forwarded-For": address} for address in ("10.0.0.1", "10.0.0.2"))
    await ask(client, "POST", "options", json={"samples_format": "webp"}, headers=here)
    found = [await ask(client, "GET", "options", headers=each) for each in (here, there)]
    assert [each["samples_format"] for each in found] == ["webp", "png"]


async def test_what_is_refused_is_listed_with_the_reason(client):
    """And the rest is done."""
    answer = await ask(
        client,
        "POST",
        "options",
        json={"samples_format": "webp", "eta_noise_seed_delta": 31337, "x" * 100: 1},
    )
    assert answer == {
        "refused": {
            "eta_noise_seed_delta": "cannot be changed; it is 0",
            "x" * 64: "is not known here",
        }
    }
    assert (await ask(client, "GET", "options"))["samples_format"] == "webp"
    many = await ask(client, "POST", "options", json={f"o{n}": n for n in range(100)})
    assert many["refused"]["…"] == "68 more"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"sd_model_checkpoint": "other"}, 404),
        ({"sd_model_checkpoint": 5}, 404),
        ({"CLIP_stop_at_last_layers": "x"}, 400),
        ({"CLIP_stop_at_last_layers": True}, 400),
        ({"CLIP_stop_at_last_layers": 99}, 400),
        ({"samples_format": "gif"}, 400),
        ({"jpeg_quality": 0}, 400),
    ],
)
async def test_values_that_cannot_be_are_errors_and_change_nothing(client, given, status):
    """Nothing else of the request is done either."""
    await ask(client, "POST", "options", status, json={"jpeg_quality": 50} | given)
    shown = await ask(client, "GET", "options")
    assert shown["jpeg_quality"] == 90


async def test_the_number_of_callers_is_shown(client):
    """In the metrics."""
    assert sample(client.app[METRICS], "sd_sdapi_callers_with_options") == 0
    await ask(client, "POST", "options", json={"jpeg_quality": 50})
    assert sample(client.app[METRICS], "sd_sdapi_callers_with_options") == 1
    client.app[OPTIONS].evicted()
    assert sample(client.app[METRICS], "sd_sdapi_options_evicted_total") == 1


def test_options_are_dropped_when_nobody_uses_them():
    """Hours after their last use; a use keeps them."""
    clock = Clock()
    held = CallerOptions(clock=clock)
    held.set("a", {"jpeg_quality": 1})
    held.set("b", {"jpeg_quality": 2})
    clock.now = options.KEPT_SECONDS - 1
    assert held.of("a") == {"jpeg_quality": 1}
    clock.now += 2
    assert (held.of("b"), held.of("a"), len(held)) == ({}, {"jpeg_quality": 1}, 1)


def test_those_who_used_theirs_least_lately_make_room():
    """However many callers come."""
    held, evicted = CallerOptions(most=2), []
    held.evicted = lambda: evicted.append(1)
    for caller in "ab":
        held.set(caller, {"jpeg_quality": 1})
    held.of("a")
    held.set("c", {"jpeg_quality": 1})
    assert (held.of("b"), held.of("a"), len(evicted)) == ({}, {"jpeg_quality": 1}, 1)


def test_an_option_that_is_taken_back_takes_no_room():
    """None takes it back."""
    held = CallerOptions()
    held.set("a", {"jpeg_quality": 1})
    held.set("a", {"jpeg_quality": None})
    assert len(held) == 0
