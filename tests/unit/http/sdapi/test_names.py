"""Samplers and schedules in AUTOMATIC1111's spellings."""

import pytest

from service.core.sampler import Sampler, Schedule
from service.errors import SamplerNotFound
from service.http.sdapi import names
from service.http.sdapi.names import meant


@pytest.mark.parametrize(
    ("sampler", "scheduler", "drawn"),
    [
        ("DPM++ 2M", "Karras", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "automatic", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "uniform", ("dpmpp_2m", "normal")),
        ("DPM++ 2M", "Normal", ("dpmpp_2m", "normal")),
        ("DPM++ 2M Karras", "", ("dpmpp_2m", "karras")),
        ("DPM++ 2M Karras", "Exponential", ("dpmpp_2m", "exponential")),
        ("k_dpmpp_2m", "", ("dpmpp_2m", "karras")),
        ("k_dpmpp_2m_ka", "", ("dpmpp_2m", "karras")),
        ("dpmpp_2m", "sgm_uniform", ("dpmpp_2m", "sgm_uniform")),
        ("DPM++ 2M SDE", "Automatic", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SDE Karras", "", ("dpmpp_2m_sde", "karras")),
        ("DPM++ 3M SDE", "", ("dpmpp_3m_sde", "exponential")),
        ("DPM++ SDE", "", ("dpmpp_sde", "karras")),
        ("DPM2 a Karras", "", ("dpm2_a", "karras")),
        ("Euler a", "automatic", ("euler_a", "automatic")),
        ("euler A", "SGM Uniform", ("euler_a", "sgm_uniform")),
        ("k_euler_a", "", ("euler_a", "automatic")),
        ("LMS Karras", "", ("lms", "karras")),
        ("PLMS", "", ("pndm", "automatic")),
        ("UniPC", "Align Your Steps", ("unipc", "align_your_steps")),
        ("LCM", "", ("lcm", "automatic")),
        ("dpm++2m", "discrete", ("dpmpp_2m", "normal")),
        ("euler_a", "ays", ("euler_a", "align_your_steps")),
        ("", "Karras", (None, "karras")),
        ("", "", (None, None)),
    ],
)
def test_every_spelling_is_understood(sampler, scheduler, drawn):
    """The pair, the joined name of old versions, the alias; in upper and lower case."""
    found = meant(sampler, scheduler)
    assert (found.sampler, found.schedule, found.warnings) == (*drawn, ())


@pytest.mark.parametrize(
    ("sampler", "scheduler", "schedule", "warning"),
    [
        ("DDIM", "Karras", "automatic", "DDIM does not follow Karras"),
        ("LCM", "SGM Uniform", "automatic", "LCM does not follow SGM Uniform"),
        ("DPM++ 2M", "KL Optimal", "karras", "'KL Optimal' is not available"),
    ],
)
def test_what_a_sampler_cannot_follow_is_named(sampler, scheduler, schedule, warning):
    """AUTOMATIC1111 leaves it out in silence."""
    found = meant(sampler, scheduler)
    assert found.schedule == schedule
    (text,) = found.warnings
    assert warning in text


@pytest.mark.parametrize("name", ["DPM fast", "Restart", "x" * 1000, "karras", "Karras"])
def test_an_unknown_sampler_is_an_error(name):
    """No other is drawn with in its place."""
    with pytest.raises(SamplerNotFound):
        meant(name, "")


def test_what_is_listed_can_be_asked_for():
    """By each of its names, and each is what it says."""
    for row in names.listed_samplers():
        sampler = Sampler(str(meant(row["name"], "").sampler))
        for alias in row["aliases"]:
            assert meant(alias, "").sampler == sampler
        own = row["options"].get("scheduler", "automatic")
        assert meant(row["name"], "automatic").schedule == own
    for row in names.listed_schedulers()[1:]:
        for name in (row["name"], row["label"], *(row["aliases"] or ())):
            assert meant("Euler", name).schedule == row["name"]


def test_all_samplers_and_schedules_are_listed():
    """A new one needs its name here."""
    listed = {meant(row["name"], "").sampler for row in names.listed_samplers()}
    assert listed == {*Sampler}
    assert {row["name"] for row in names.listed_schedulers()} == {*Schedule}
