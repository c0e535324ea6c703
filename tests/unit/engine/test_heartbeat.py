"""How long an engine may be silent."""

from dataclasses import replace

import pytest

from service.core.events import OutOfMemoryHit, StepBaseline, Stepped
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage
from service.engine.heartbeat import (
    STAGE_FLOOR_SECONDS,
    STEP_FLOOR_SECONDS,
    Heartbeat,
)
from service.engine.protocol import StageStarted

MOST = 600


def request(side: int, images: int = 1) -> GenerationSpec:
    return GenerationSpec(prompt="a cat", width=side, height=side, num_images=images)


SMALL, LARGE = request(256), request(768)


@pytest.fixture
def heartbeat() -> Heartbeat:
    """Return one that allows ten minutes to what it does not know."""
    return Heartbeat(MOST)


def stepped(heartbeat: Heartbeat, side: int, seconds: float, images: int = 1) -> None:
    pixels = side * side * images
    heartbeat.hear(StageStarted(stage=Stage.DENOISE, images=images))
    heartbeat.hear(Stepped(batch_size=images, pixels=pixels, seconds=seconds))


def test_what_was_never_seen_may_take_the_most(heartbeat):
    """The first step of all compiles kernels, or runs a large model on a slow processor."""
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == MOST
    assert heartbeat.limit(Stage.VAE_DECODE, [SMALL, LARGE]) == MOST


def test_a_new_size_is_foretold_from_others(heartbeat):
    """Nine times the pixels take 81 times as long at most, and fewer no longer."""
    stepped(heartbeat, 256, 0.05)
    assert heartbeat.limit(Stage.DENOISE, [LARGE]) == pytest.approx(10 * 81 * 0.05)
    assert heartbeat.limit(Stage.DENOISE, [SMALL, LARGE]) == pytest.approx(10 * 81 * 0.05)
    stepped(heartbeat, 1024, 3.0)
    assert heartbeat.limit(Stage.DENOISE, [LARGE]) == 30
    assert heartbeat.limit(Stage.DENOISE, [request(2048)]) == 10 * 16 * 3
    assert heartbeat.limit(Stage.DENOISE, [request(64)]) == STAGE_FLOOR_SECONDS


def test_a_new_size_and_more_images_than_were_seen(heartbeat):
    """Both make a step longer."""
    stepped(heartbeat, 256, 1.0, images=2)
    assert heartbeat.limit(Stage.DENOISE, [request(512, 4)]) == 10 * 2 * 16


def test_each_model_has_its_own_usual_step(heartbeat):
    """What is fast with one says nothing of another; of several in work the slowest counts."""
    stepped(heartbeat, 256, 0.05)
    other = replace(SMALL, model="other")
    assert heartbeat.limit(Stage.DENOISE, [other]) == MOST
    heartbeat.hear(StepBaseline(pixels=256 * 256, images=1, seconds=4.0, model_id="other"))
    assert heartbeat.limit(Stage.DENOISE, [other]) == heartbeat.limit(Stage.DENOISE, [SMALL, other])
    assert heartbeat.limit(Stage.DENOISE, [other]) == 40
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS


def test_the_warm_up_teaches(heartbeat):
    """The first request of a process is not given ten minutes."""
    heartbeat.hear(StepBaseline(pixels=256 * 256, images=1, seconds=0.06))
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS
    assert heartbeat.limit(Stage.DENOISE, [LARGE]) == pytest.approx(10 * 81 * 0.06)


def test_ten_times_the_usual_step_is_too_long(heartbeat):
    """Of the slowest size in work, which may be the one that runs."""
    stepped(heartbeat, 256, 3.0)
    stepped(heartbeat, 768, 9.0)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == 30
    assert heartbeat.limit(Stage.DENOISE, [SMALL, LARGE]) == 90


def test_more_images_than_were_seen_together_may_take_longer_in_proportion(heartbeat):
    """A batch of four after one of one; fewer than were seen are not held to less."""
    stepped(heartbeat, 256, 3.0)
    assert heartbeat.limit(Stage.DENOISE, [request(256, 4)]) == 120
    stepped(heartbeat, 256, 5.0, images=4)
    assert heartbeat.limit(Stage.DENOISE, [request(256, 4)]) == 50
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == 50


def test_the_usual_time_follows_a_slower_device(heartbeat):
    """A device that got slower for good is not restarted for ever."""
    for seconds in [2.0] + [4.0] * 30:
        stepped(heartbeat, 256, seconds)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == pytest.approx(40, rel=0.01)


def test_a_quick_step_has_a_floor_of_its_own_and_other_stages_another(heartbeat):
    """Decoding takes longer than ten steps of a fast card; a step does not."""
    stepped(heartbeat, 256, 0.06)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS
    assert heartbeat.limit(Stage.VAE_DECODE, [SMALL]) == STAGE_FLOOR_SECONDS


def test_the_most_is_never_exceeded(heartbeat):
    """Not by ten steps of a very slow device either."""
    stepped(heartbeat, 256, 100.0)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == MOST


def test_a_model_that_loads_has_the_most_and_one_that_is_fetched_has_no_limit(heartbeat):
    """Nobody knows how fast a network is; a file that is read comes to an end."""
    assert heartbeat.limit(Stage.LOAD, []) == MOST
    assert heartbeat.limit(Stage.FETCH, []) is None


def test_the_first_steps_of_another_process_may_take_longer(heartbeat):
    """It loads the kernels that the one before had."""
    stepped(heartbeat, 256, 0.06)
    heartbeat.renew()
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STAGE_FLOOR_SECONDS
    stepped(heartbeat, 256, 0.06)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS


def test_after_an_out_of_memory_one_step_may_take_the_most(heartbeat):
    """What is done about it may be slow; what was learned of every size holds again after it."""
    stepped(heartbeat, 768, 0.5)
    stepped(heartbeat, 256, 0.06)
    heartbeat.hear(OutOfMemoryHit(stage=Stage.VAE_DECODE, batch_size=1))
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == MOST
    stepped(heartbeat, 256, 0.06)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS
    assert heartbeat.limit(Stage.VAE_DECODE, [LARGE]) == STAGE_FLOOR_SECONDS


def test_steps_with_less_memory_may_all_be_slower(heartbeat):
    """The first one tells, not the mean with those before."""
    stepped(heartbeat, 256, 0.06)
    heartbeat.hear(OutOfMemoryHit(stage=Stage.DENOISE, batch_size=1, rung=OomRung.OFFLOAD))
    stepped(heartbeat, 256, 4.0)
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == 40


def test_another_process_has_not_run_out_of_memory(heartbeat):
    """What is known of its steps holds."""
    stepped(heartbeat, 256, 0.06)
    heartbeat.hear(OutOfMemoryHit(stage=Stage.DENOISE, batch_size=1))
    heartbeat.renew()
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STAGE_FLOOR_SECONDS


def test_a_step_that_is_begun_twice_has_run_out_of_memory(heartbeat):
    """Which is told only when it is over."""
    stepped(heartbeat, 256, 0.06)
    heartbeat.hear(StageStarted(stage=Stage.DENOISE, images=2))
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS
    heartbeat.hear(StageStarted(stage=Stage.DENOISE, images=1))
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == MOST


def test_stages_between_two_steps_are_no_second_try(heartbeat):
    """An image is decoded, or a prompt read, and the next step is a usual one."""
    stepped(heartbeat, 256, 0.06)
    heartbeat.hear(StageStarted(stage=Stage.VAE_DECODE, images=1))
    heartbeat.hear(StageStarted(stage=Stage.DENOISE, images=1))
    assert heartbeat.limit(Stage.DENOISE, [SMALL]) == STEP_FLOOR_SECONDS


def test_sub_prompts_may_take_as_long_as_images(heartbeat):
    """A step of an image with AND takes longer than one with a single prompt."""
    stepped(heartbeat, 256, 3.0)
    composed = replace(SMALL, prompt="a AND b", prompt_syntax="a1111")
    assert heartbeat.limit(Stage.DENOISE, [composed]) == 45
