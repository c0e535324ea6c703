"""Limits and defaults of requests, by settings and model."""

from typing import Any

import pytest

from service.config.limits import limits_of
from service.config.loading import load
from service.config.table import Config
from service.core.limits import LARGEST, SD, SD_2_V, SDXL, Sizes
from service.core.recipe import Recipe
from service.core.spec import FIELDS
from service.errors import ConfigError
from service.models.defaults.known import look


def sides(sizes: Sizes, **settings: Any) -> tuple[int, int, int]:
    found = limits_of(Config(**settings), sizes)
    return found.min_size, found.default_size, found.max_size


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [(SD, (256, 512, 768)), (SD_2_V, (256, 768, 768)), (SDXL, (512, 1024, 1536))],
)
def test_a_model_brings_the_sizes_that_suit_it(sizes, expected):
    """Nobody has to know them to get good images."""
    assert sides(sizes) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"default_size": 768}, (512, 768, 1536)),
        ({"default_size": 256}, (256, 256, 1536)),
        ({"default_size": 2048}, (512, 2048, 2048)),
        ({"max_size": 1024}, (512, 1024, 1024)),
        ({"max_size": 768}, (512, 768, 768)),
        ({"max_size": 256}, (256, 256, 256)),
        ({"min_size": 256}, (256, 1024, 1536)),
        ({"min_size": 1280}, (1280, 1280, 1536)),
        ({"min_size": 2048}, (2048, 2048, 2048)),
        ({"min_size": 64, "default_size": 128, "max_size": 192}, (64, 128, 192)),
    ],
)
def test_a_size_that_a_setting_gives_holds(settings, expected):
    """Those of the model give way to it, so that the default lies between the limits."""
    assert sides(SDXL, **settings) == expected


def test_a_size_may_be_left_to_the_model_in_words():
    """It is what the table of settings shows as the default."""
    assert load({"MAX_SIZE": "auto", "MIN_SIZE": " AUTO "}) == load({})


@pytest.mark.parametrize(
    ("environment", "scale"),
    [
        ({}, 3.0),
        ({"MODEL_ID": "org/model"}, 7.5),
        ({"DEFAULT_GUIDANCE_SCALE": "5"}, 5.0),
    ],
)
def test_the_demo_model_has_a_guidance_scale_of_its_own(environment, scale):
    """Unless one is set, the default is what suits the model."""
    config = load(environment)
    known = look(config)
    assert limits_of(config, known.sizes, known.recipe).default_guidance_scale == scale


FAST = Recipe(name="fast", steps=4, guidance_scale=0.0, sampler="lcm", size=512)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (4, 0.0, "lcm", 512)),
        ({"default_steps": 8}, (8, 0.0, "lcm", 512)),
        ({"default_guidance_scale": 0.5}, (4, 0.5, "lcm", 512)),
        ({"default_sampler": "euler"}, (4, 0.0, "euler", 512)),
        ({"default_size": 768}, (4, 0.0, "lcm", 768)),
        ({"min_size": 640}, (4, 0.0, "lcm", 640)),
        ({"max_steps": 2}, (2, 0.0, "lcm", 512)),
    ],
)
def test_a_recipe_gives_way_to_settings(settings, expected):
    """It stands for what nobody said."""
    found = limits_of(Config(**settings), SDXL, FAST)
    assert expected == (
        found.default_steps,
        found.default_guidance_scale,
        found.default_sampler,
        found.default_size,
    )


def test_default_steps_are_those_that_the_default_sampler_takes():
    """A recipe may have been made for another sampler."""
    slow = Recipe(name="slow", steps=100)
    found = limits_of(Config(default_sampler="lcm", max_steps=200), SD, slow)
    assert found.default_steps == 50


NOISY = Recipe(name="noisy", sampler="ddim", schedule="sgm_uniform")


def test_a_default_schedule_that_a_model_lacks_is_none_of_it():
    """With several models the setting holds for those that have it."""
    config = Config(default_schedule="align_your_steps")
    assert limits_of(config).default_schedule == "align_your_steps"
    assert limits_of(config, schedules=("automatic", "karras")).default_schedule == "automatic"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "sgm_uniform"),
        ({"default_schedule": "normal"}, "normal"),
        ({"default_schedule": "karras"}, "automatic"),
        ({"default_sampler": "euler"}, "sgm_uniform"),
        ({"default_sampler": "lcm"}, "automatic"),
        ({"default_sampler": "dpmpp_2m_karras"}, "automatic"),
    ],
)
def test_the_default_schedule_is_one_that_the_default_sampler_follows(settings, expected):
    """A request that names nothing must not be refused."""
    assert limits_of(Config(**settings), SD, NOISY).default_schedule == expected
    assert limits_of(Config(**settings)).default_schedule == settings.get(
        "default_schedule", "automatic"
    )


def test_settings_that_do_not_go_together_are_refused():
    """Both are the operator's own."""
    with pytest.raises(ConfigError, match="DEFAULT_SCHEDULE: must be one of automatic with lcm"):
        Config(default_sampler="lcm", default_schedule="karras")


def test_every_setting_that_a_field_names_is_a_limit():
    """The fields of a request are checked with nothing else."""
    limits = limits_of(Config())
    scalars = [each.within(limits) for each in FIELDS if not each.is_object]
    assert [each.name for each in scalars if each.default is None] == []


def test_the_largest_size_of_all_models_is_known():
    """The longest message of an engine whose model is not known yet is counted by it."""
    assert LARGEST == 1536
