"""Samplers as values."""

import pytest

from service.core.sampler import Sampler, Schedule, resolved


def test_a_sampler_is_its_name():
    """So it can stand in JSON, in a label and in a setting."""
    assert Sampler("heun") is Sampler.HEUN
    assert (str(Sampler.HEUN), Sampler.HEUN) == ("heun", "heun")
    with pytest.raises(ValueError, match="magic"):
        Sampler("magic")


def test_what_samplers_cost_and_take():
    """Those of the second order ask the UNet twice a step; LCM was distilled with 50 steps."""
    twice = {each: each.evaluations for each in Sampler if each.evaluations != 1}
    assert twice == dict.fromkeys(("dpm2", "dpm2_a", "dpmpp_sde", "heun"), 2)
    assert {each: each.most_steps for each in Sampler if each.most_steps} == {"lcm": 50, "tcd": 50}


def test_an_alias_is_a_sampler_with_a_schedule():
    """A request that names another schedule gets that one; other names are what they are."""
    assert resolved("dpmpp_2m_karras") == ("dpmpp_2m", "karras")
    assert resolved("dpmpp_2m_karras", "beta") == ("dpmpp_2m", "beta")
    assert resolved("euler", "beta") == ("euler", "beta")
    assert resolved("magic") == ("magic", "automatic")


def test_every_sampler_can_follow_the_models_own_schedule():
    """It is the default, and comes first."""
    assert {each.schedules[0] for each in Sampler} == {Schedule.AUTOMATIC}
