"""What a request may say."""

import dataclasses

import pytest

from service.config.limits import limits_of
from service.config.table import Config
from service.core.recipe import Recipe
from service.core.spec import Adapter, GenerationSpec
from service.errors import ValidationFailed
from service.http.schema.generation import read_request


def errors(fields: dict[str, object], config: Config | None = None) -> dict[str, list[str]]:
    with pytest.raises(ValidationFailed) as caught:
        read_request(fields, limits_of(config or Config()))
    return caught.value.errors


def test_defaults_come_from_the_settings():
    """Everything but the prompt can be left out."""
    config = Config(default_steps=7, default_size=320, default_sampler="ddim")
    expected = GenerationSpec(
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
    assert expected == read_request({"prompt": "a boat", "seed": 5}, limits_of(config))


def test_limits_come_from_the_settings():
    """The owner of a bigger card raises them without touching code."""
    config = Config(max_size=1024, max_steps=100, max_images=8, max_prompt_chars=1000)
    fields = {"prompt": "x" * 1000, "width": 1024, "steps": 100, "num_images": 8}
    request = read_request(fields, limits_of(config))
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
        "seed": -2,
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
        assert read_request(fields, limits_of(config)).steps == steps
    assert read_request({**fields, "sampler": "euler"}, limits_of(config)).steps == steps


def test_the_limit_of_a_sampler_is_named_beside_other_mistakes():
    """Every wrong field at once."""
    fields = {"prompt": "", "sampler": "lcm", "steps": 51}
    assert set(errors(fields, Config(max_steps=100))) == {"prompt", "steps"}


@pytest.mark.parametrize("given", [{}, {"seed": None}, {"seed": -1}, {"seed": -1.0}])
def test_seeds_are_random_when_none_is_given(given):
    """Two requests without a seed get two images; -1 is what other services take for that."""
    seeds = {
        read_request({"prompt": "a boat", **given}, limits_of(Config())).seed for _ in range(8)
    }
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_null_is_as_if_a_field_were_left_out():
    """Clients with typed requests send it for whatever their caller has not set."""
    config = Config(default_steps=7, default_size=320, default_sampler="ddim")
    names = {item.name for item in dataclasses.fields(GenerationSpec)} - {"prompt", "seed"}
    full = read_request({"prompt": "a boat", "seed": 5, **dict.fromkeys(names)}, limits_of(config))
    assert full == read_request({"prompt": "a boat", "seed": 5}, limits_of(config))


def test_null_is_no_prompt():
    """What is required is asked for in the words of a wrong one."""
    message = 'must be text of 1 to 500 characters, e.g. "a lighthouse at dusk"'
    assert errors({"prompt": None}) == {"prompt": [message]}


def test_the_prompt_is_taken_as_it_was_written():
    """Blanks around it are the user's own."""
    assert read_request({"prompt": "  a boat "}, limits_of(Config())).prompt == "  a boat "


def test_eta_is_for_samplers_that_take_it():
    """With any other one it would be read and ignored."""
    fields = {"prompt": "a boat", "eta": 0.5}
    assert read_request({**fields, "sampler": "ddim"}, limits_of(Config())).eta == 0.5
    wrong = errors({**fields, "sampler": "euler"})
    assert wrong == {"eta": ["must be 0 with the sampler euler; ddim or tcd takes it"]}
    assert errors(fields)["eta"]  # The default sampler takes none.
    assert read_request({**fields, "eta": 0}, limits_of(Config())).eta == 0


def test_the_eta_of_a_recipe_is_for_samplers_that_take_it():
    """A request that names another sampler need not know of it."""
    limits = limits_of(Config(), recipe=Recipe(name="noisy", sampler="ddim", eta=0.3))
    assert read_request({"prompt": "a boat"}, limits).eta == 0.3
    assert read_request({"prompt": "a boat", "sampler": "ddim"}, limits).eta == 0.3
    assert read_request({"prompt": "a boat", "sampler": "euler"}, limits).eta == 0
    other = limits_of(Config(default_sampler="euler"), recipe=Recipe(name="noisy", eta=0.3))
    assert read_request({"prompt": "a boat"}, other).eta == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("ddim", "sgm_uniform")),
        ({"sampler": "euler"}, ("euler", "sgm_uniform")),
        ({"schedule": "automatic"}, ("ddim", "automatic")),
        ({"schedule": None, "sampler": "lcm"}, ("lcm", "automatic")),
        ({"sampler": "dpmpp_2m_karras"}, ("dpmpp_2m", "karras")),
        ({"sampler": "heun", "schedule": "karras"}, ("heun", "karras")),
    ],
)
def test_the_schedule_of_a_recipe_is_for_samplers_that_follow_it(fields, expected):
    """A request that names another sampler need not know of it."""
    recipe = Recipe(name="fast", sampler="ddim", schedule="sgm_uniform")
    found = read_request({"prompt": "a boat", **fields}, limits_of(Config(), recipe=recipe))
    assert (found.sampler, found.schedule) == expected


@pytest.mark.parametrize(("said", "meant"), [(None, 1), (0, 1), (1, 1), (2, 2), (12, 12)])
def test_layers_that_are_skipped(said, meant):
    """Some clients write 0 for none."""
    assert read_request({"prompt": "a boat", "clip_skip": said}, limits_of(Config())).clip_skip == (
        meant
    )


def test_a_model_has_so_many_layers():
    """Its text encoder says how many."""
    limits = limits_of(Config(), max_clip_skip=3)
    assert read_request({"prompt": "a boat", "clip_skip": 3}, limits).clip_skip == 3
    with pytest.raises(ValidationFailed) as raised:
        read_request({"prompt": "a boat", "clip_skip": 4}, limits)
    assert raised.value.errors == {"clip_skip": ["must be a whole number between 0 and 3, e.g. 2"]}


@pytest.mark.parametrize("sampler", [[], {}, 5])
def test_a_sampler_of_another_type_is_a_mistake_and_no_more(sampler):
    """The checks of other fields look at it, too."""
    assert errors({"prompt": "a boat", "sampler": sampler}).keys() == {"sampler"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("plain", "cut")),
        ({"prompt_syntax": "a1111"}, ("a1111", "chunks")),
        ({"prompt_syntax": "a1111", "long_prompts": None}, ("a1111", "chunks")),
        ({"prompt_syntax": "a1111", "long_prompts": "cut"}, ("a1111", "cut")),
        ({"long_prompts": "chunks"}, ("plain", "chunks")),
    ],
)
def test_long_prompts_are_read_as_the_syntax_does(fields, expected):
    """AUTOMATIC1111 reads in chunks, diffusers cuts; a request may say otherwise."""
    request = read_request({"prompt": "a boat", **fields}, limits_of(Config()))
    assert (request.prompt_syntax, request.long_prompts) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("prompt", "<lora:ink:1><lora:ink:2>", "must give the adapter ink one weight"),
        ("prompt", "a <lora:ink:x>", "<lora:ink:x> must be <lora:name:weight>"),
        ("prompt", " AND ".join("abcdefghi"), "must have at most 8 parts with AND between them"),
        ("prompt", "(a:11)", "must have weights between -10 and 10, not 11"),
        ("negative_prompt", "(a:-11)", "must have weights between -10 and 10, not -11"),
        ("negative_prompt", "<lora:ink:1>", "must not name adapters"),
    ],
)
def test_what_a_prompt_cannot_say(name, text, message):
    """The field at fault is named; in plain text the same is no fault."""
    fields = {"prompt": "a boat", name: text}
    (found,) = errors({**fields, "prompt_syntax": "a1111"})[name]
    assert found.startswith(message)
    assert getattr(read_request(fields, limits_of(Config())), name) == text


def test_faults_of_both_prompts_and_of_other_fields_are_named():
    """Every wrong field at once."""
    fields = {"prompt": "(a:11)", "negative_prompt": "(a:11)", "steps": 0}
    assert set(errors({**fields, "prompt_syntax": "a1111"})) == set(fields)


def test_tags_of_a_prompt_are_adapters():
    """They join those of the field, and stay in the text; in plain text they are words."""
    ink = Adapter(name="ink", weight=0.8, text_weight=0.5)
    fields = {"prompt": "a boat <lora:ink:0.5:0.8>", "adapters": [{"name": "snow"}]}
    names = [each.name for each in read_request(fields, limits_of(Config())).adapters]
    read = read_request({**fields, "prompt_syntax": "a1111"}, limits_of(Config()))
    assert names == ["snow"]
    assert [each.name for each in read.adapters] == ["snow", "ink"]
    assert read.adapters[1] == ink
    assert read.prompt == fields["prompt"]


@pytest.mark.parametrize(
    ("sampler", "follows"),
    [
        ("lcm", "must be automatic with"),
        ("tcd", "must be automatic with"),
        ("ddim", "must be one of automatic, normal, sgm_uniform with"),
    ],
)
def test_a_sampler_that_cannot_follow_a_schedule(sampler, follows):
    """The answer names the schedules of the sampler, and the samplers of the schedule."""
    with pytest.raises(ValidationFailed) as raised:
        read_request(
            {"prompt": "a boat", "sampler": sampler, "schedule": "karras"}, limits_of(Config())
        )

    (words,) = raised.value.errors["schedule"]
    assert words.startswith(follows)
    assert f"with the sampler {sampler}; karras works with deis, dpm2, dpm2_a" in words


def test_an_old_name_of_a_sampler_and_its_schedule():
    """It stands for both, and says no to another schedule; a default of the settings gives way."""
    old = {"prompt": "a boat", "sampler": "dpmpp_2m_karras"}
    pairs = [
        read_request({**old, **more}, limits_of(Config()))
        for more in ({}, {"schedule": "karras"}, {"schedule": "automatic"}, {"schedule": None})
    ]
    assert {(each.sampler, each.schedule) for each in pairs} == {("dpmpp_2m", "karras")}

    with pytest.raises(ValidationFailed) as raised:
        read_request({**old, "schedule": "beta"}, limits_of(Config()))
    message = "must be karras with dpmpp_2m_karras; or name the sampler dpmpp_2m"
    assert raised.value.errors == {"schedule": [message]}

    by_default = Config(default_sampler="dpmpp_2m_karras")
    found = read_request({"prompt": "a boat", "schedule": "beta"}, limits_of(by_default))
    assert (found.sampler, found.schedule) == ("dpmpp_2m", "beta")
