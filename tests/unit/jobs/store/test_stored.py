"""Jobs as rows."""

import json
import random
import string

import pytest

from service.core.inputs import Hires, InputImage, Pad
from service.core.outcome import Delivery, DeliveryState
from service.core.spec import FIELDS, Adapter, GenerationSpec
from service.jobs.job import FINAL, JobState
from service.jobs.store.reading import DamagedRow
from service.jobs.store.stored import (
    COLUMNS,
    StoredJob,
    from_row,
    request_from_json,
    request_to_json,
    to_row,
)


def request(rng: random.Random) -> GenerationSpec:
    letters = string.printable + "äß漢字\U0001f600\u2028'\";--"
    return GenerationSpec(
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
    state = rng.choice(list(JobState))
    job = StoredJob(
        id=f"{rng.getrandbits(128):032x}",
        owner="anna",
        request=request(rng),
        state=state,
        finished_at=3.5 if state in FINAL else None,
        created_at=rng.uniform(0, 2e9),
        deadline_at=rng.choice([None, 1.5]),
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
        owner="anna",
        request=GenerationSpec(prompt="a"),
        created_at=1.0,
        webhook="https://example.org/",
    )
    assert from_row(to_row(job)).delivery == Delivery()


def test_every_part_of_a_request_is_written():
    """A field that JSON cannot hold would fail here, before it fails at the door."""
    written = json.loads(request_to_json(GenerationSpec(prompt="a")))
    assert written.keys() == {each.name for each in FIELDS if not each.needs}


IMAGE = InputImage(digest="0" * 64, width=640, height=480)
WITH_IMAGES = GenerationSpec(
    prompt="a",
    image=IMAGE,
    mask=IMAGE,
    strength=0.5,
    resize="fill",
    mask_blur=8,
    mask_padding=32,
    mask_invert=True,
    mask_fill="noise",
    pad=Pad(left=64),
    subseed=7,
    subseed_strength=0.25,
)


@pytest.mark.parametrize(
    "request_", [WITH_IMAGES, GenerationSpec(prompt="a", hires=Hires(scale=1.5))]
)
def test_what_a_request_begins_with_comes_back_as_it_was(request_):
    """References to images, and objects with fields of their own."""
    assert request_from_json(request_to_json(request_)) == (request_, True)


@pytest.mark.parametrize(
    "value",
    [
        '"image": "abc"',
        '"image": {"digest": "0", "width": 64}',
        '"pad": {"left": -1}',
        '"hires": {"scale": "2"}',
        '"hires": {"scale": 2, "bogus": 1}',
        '"subseed_strength": "much"',
    ],
)
def test_objects_that_cannot_be_read_are_damage(value):
    """No request was ever stored so."""
    with pytest.raises(DamagedRow, match=value.split('"')[1]):
        request_from_json(f'{{"prompt": "a", {value}}}')


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"width": 512}', "null"])
def test_a_request_that_cannot_be_read_is_damage(text):
    """It is told from one of another version, and its row is set aside."""
    with pytest.raises(DamagedRow, match="request"):
        request_from_json(text)


def test_a_request_of_a_newer_version_is_known_to_be_incomplete():
    """What this version does not know may change the image."""
    text = '{"prompt": "a boat", "from_the_future": 1}'
    assert request_from_json(text) == (GenerationSpec(prompt="a boat"), False)
    assert request_from_json('{"prompt": "a", "sampler": "of tomorrow"}')[1] is False
    assert request_from_json('{"prompt": "a boat"}') == (GenerationSpec(prompt="a boat"), True)


def test_adapters_come_back_as_they_were():
    """Rows of earlier versions have none."""
    adapters = (Adapter(name="ink", weight=0.5, text_weight=1.0),)
    request = GenerationSpec(prompt="a", adapters=adapters)
    assert request_from_json(request_to_json(request)) == (request, True)
    assert request_from_json('{"prompt": "a"}')[0].adapters == ()


@pytest.mark.parametrize(
    "adapters",
    ['"ink"', "[1]", '[{"name": "ink"}]', '[{"name": "", "weight": 1, "text_weight": 1}]', "null"],
)
def test_adapters_that_cannot_be_read_are_damage(adapters):
    """No request was ever stored so."""
    with pytest.raises(DamagedRow, match="adapters"):
        request_from_json(f'{{"prompt": "a", "adapters": {adapters}}}')


def test_neither_prompts_nor_addresses_are_in_what_a_log_shows():
    """An address may hold a token."""
    job = StoredJob(
        id="0" * 32,
        owner="anna",
        request=GenerationSpec(prompt="private"),
        created_at=1.0,
        webhook="https://example.org/secret",
        metadata={"prompt": "private"},
    )
    assert "private" not in repr(job)
    assert "secret" not in repr(job)
    assert not job.final
    assert len(to_row(job)) == len(COLUMNS)
