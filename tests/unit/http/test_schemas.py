"""What a request may say."""

import pytest

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.errors import ValidationFailed
from service.http.schemas import read_request


def errors(fields: dict[str, object], config: Config | None = None) -> dict[str, list[str]]:
    with pytest.raises(ValidationFailed) as caught:
        read_request(fields, config or Config())
    return caught.value.errors


def test_defaults_come_from_the_settings():
    """Everything but the prompt can be left out."""
    config = Config(default_steps=7, default_size=320, default_sampler="ddim")
    expected = GenerationRequest(
        prompt="a boat",
        negative_prompt="",
        width=320,
        height=320,
        steps=7,
        guidance_scale=7.5,
        sampler="ddim",
        seed=5,
        num_images=1,
    )
    assert expected == read_request({"prompt": "a boat", "seed": 5}, config)


def test_limits_come_from_the_settings():
    """The owner of a bigger card raises them without touching code."""
    config = Config(max_size=1024, max_steps=100, max_images=8, max_prompt_chars=1000)
    fields = {"prompt": "x" * 1000, "width": 1024, "steps": 100, "num_images": 8}
    request = read_request(fields, config)
    assert (
        len(request.prompt),
        request.width,
        request.steps,
        request.num_images,
    ) == (1000, 1024, 100, 8)


def test_every_wrong_field_is_named_at_once():
    """Nobody has to send a request ten times to find ten mistakes."""
    fields = {
        "prompt": "",
        "negative_prompt": 1,
        "steps": "20",
        "width": 500,
        "height": 1024,
        "seed": -1,
        "guidance_scale": "high",
        "sampler": "magic",
        "num_images": 99,
        "stepz": 20,
    }
    assert set(fields) == set(errors(fields))


def test_a_missing_prompt_is_asked_for():
    """The one required field says what it is."""
    message = 'is required: text of 1 to 500 characters, e.g. "a lighthouse at dusk"'
    assert errors({}) == {"prompt": [message]}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("stepz", "steps"), ("promt", "prompt"), ("negativeprompt", "negative_prompt")],
)
def test_a_misspelt_field_gets_a_suggestion(name, meant):
    """An unknown field that resembles a known one was probably meant to be it."""
    message = f"is not a field of this request; did you mean {meant}?"
    assert errors({"prompt": "a boat", name: 1}) == {name: [message]}


def test_an_unknown_field_that_resembles_nothing_gets_no_suggestion():
    """A wrong suggestion is worse than none."""
    assert errors({"prompt": "a boat", "zzz": 1}) == {"zzz": ["is not a field of this request"]}


def test_of_thousands_of_unknown_fields_a_few_are_named():
    """Looking for near names is slow, and the answer would be longer than the request."""
    found = errors({"prompt": "a boat"} | {f"steps{i}": 1 for i in range(1000)})
    assert found.pop("body") == ["has 984 more fields that are unknown"]
    assert list(found) == [f"steps{i}" for i in range(16)]
    assert all("did you mean steps?" in messages[0] for messages in found.values())


def test_a_long_name_of_an_unknown_field_is_cut():
    """Nobody reads the rest."""
    assert errors({"prompt": "a boat", "x" * 5000: 1}) == {
        "x" * 40 + "…": ["is not a field of this request"]
    }


@pytest.mark.parametrize(("steps", "wrong"), [(50, False), (51, True), (100, True)])
def test_a_sampler_with_a_limit_of_its_own_keeps_it(steps, wrong):
    """LCM has 50 steps to choose from, whatever MAX_STEPS allows the others."""
    config = Config(max_steps=100)
    fields = {"prompt": "a boat", "sampler": "lcm", "steps": steps}
    if wrong:
        message = "must be at most 50 with the sampler lcm; or take another sampler"
        assert errors(fields, config) == {"steps": [message]}
    else:
        assert read_request(fields, config).steps == steps
    assert read_request({**fields, "sampler": "euler"}, config).steps == steps


def test_the_limit_of_a_sampler_is_named_beside_other_mistakes():
    """Every wrong field at once."""
    fields = {"prompt": "", "sampler": "lcm", "steps": 51}
    assert set(errors(fields, Config(max_steps=100))) == {"prompt", "steps"}


def test_seeds_are_random_when_none_is_given():
    """Two requests without a seed get two pictures."""
    seeds = {read_request({"prompt": "a boat"}, Config()).seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_prompt_is_taken_as_it_was_written():
    """Blanks around it are the user's own."""
    assert read_request({"prompt": "  a boat "}, Config()).prompt == "  a boat "
