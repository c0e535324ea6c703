"""Jobs as rows."""

import dataclasses
import json
import random
import string

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.job import JobState
from service.jobs.stored import (
    COLUMNS,
    Delivery,
    DeliveryState,
    StoredJob,
    from_row,
    request_from_json,
    request_to_json,
    to_row,
)


def request(rng: random.Random) -> GenerationRequest:
    letters = string.printable + "äß漢字\U0001f600\u2028'\";--"
    return GenerationRequest(
        prompt="".join(rng.choices(letters, k=rng.randint(1, 60))),
        negative_prompt="".join(rng.choices(letters, k=rng.randint(0, 20))),
        width=rng.choice([256, 512, 768]),
        steps=rng.randint(1, 50),
        guidance_scale=rng.uniform(0, 20),
        seed=rng.randrange(2**32),
        num_images=rng.randint(1, 4),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_job_comes_back_from_its_row_as_it_was(seed):
    """Whatever is in it: numbers keep all their digits, and words all their letters."""
    rng = random.Random(seed)  # noqa: S311 - test values
    states = list(DeliveryState)
    delivery = Delivery(state=rng.choice(states), attempts=3, status=rng.choice([None, 503]))
    hook = rng.choice([None, "https://example.org/hook?token=1"])
    job = StoredJob(
        id=f"{rng.getrandbits(128):032x}",
        key="anna",
        request=request(rng),
        state=rng.choice(list(JobState)),
        created_at=rng.uniform(0, 2e9),
        deadline_at=rng.choice([None, 1.5]),
        priority=rng.randint(-3, 3),
        metadata=rng.choice([None, {"seed": 2**32 - 1, "words": ["ä"]}]),
        idempotency_key=rng.choice([None, "once"]),
        webhook=hook,
        delivery=delivery if hook else None,
    )
    assert from_row(to_row(job)) == job


def test_a_webhook_is_pending_from_the_start():
    """A job that ends just before a crash is told of after it."""
    job = StoredJob(
        id="0" * 32,
        key="anna",
        request=GenerationRequest(prompt="a"),
        created_at=1.0,
        webhook="https://example.org/",
    )
    assert from_row(to_row(job)).delivery == Delivery()


def test_every_part_of_a_request_is_written():
    """A field that JSON cannot hold would fail here, before it fails at the door."""
    written = json.loads(request_to_json(GenerationRequest(prompt="a")))
    assert written.keys() == {item.name for item in dataclasses.fields(GenerationRequest)}


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"width": 512}', "null"])
def test_a_request_that_cannot_be_read_is_known_to_be_incomplete(text):
    """One broken row does not keep the service from starting."""
    assert request_from_json(text) == (GenerationRequest(prompt=""), False)


def test_a_request_of_a_newer_version_is_known_to_be_incomplete():
    """What this version does not know may change the picture."""
    text = '{"prompt": "a boat", "from_the_future": 1}'
    assert request_from_json(text) == (GenerationRequest(prompt="a boat"), False)
    assert request_from_json('{"prompt": "a boat"}') == (GenerationRequest(prompt="a boat"), True)


def test_neither_prompts_nor_addresses_are_in_what_a_log_shows():
    """An address may hold a token."""
    job = StoredJob(
        id="0" * 32,
        key="anna",
        request=GenerationRequest(prompt="private"),
        created_at=1.0,
        webhook="https://example.org/secret",
        metadata={"prompt": "private"},
    )
    assert "private" not in repr(job)
    assert "secret" not in repr(job)
    assert not job.final
    assert len(to_row(job)) == len(COLUMNS)
