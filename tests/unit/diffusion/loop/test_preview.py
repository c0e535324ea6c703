"""Previews: a linear map that is learned from what the engine decodes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from service.core.events import JobFinished, OutOfMemoryHit, Previewed, Stepped
from service.core.image import RawImage
from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from service.diffusion.loop import preview
from service.diffusion.loop.preview import LinearMap, Previews, shrunk
from service.diffusion.loop.step_loop import StepLoop

REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=4, seed=5)


class Clock:
    """A time that a test decides."""

    now = 100.0

    def __call__(self):
        return self.now


def made(loop, *, seconds=10.0):
    """Step to the end, with so much time between two steps, and return what was reported."""
    clock = Clock()
    loop.previews._clock = clock
    outcomes = []
    while loop.busy:
        outcomes += loop.step()
        clock.now += seconds
    return outcomes


def of(kind, outcomes):
    """Pick the outcomes of one kind."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]


def test_a_linear_decoder_is_found_exactly():
    """Whatever its factors and its offset, for any number of channels, from any sizes."""
    rng = np.random.default_rng(1)
    for channels in (4, 16):
        factors, offset = rng.normal(0, 12, (channels, 3)), np.array([100.0, 128.0, 140.0])
        learned = LinearMap(channels)
        for size in ((8, 8), (4, 16), (16, 16)):
            latents = rng.normal(0, 1, (channels, *size))
            learned.learn(latents, latents.transpose(1, 2, 0) @ factors + offset)
        latents = rng.normal(0, 1, (channels, 8, 8))
        expected = (latents.transpose(1, 2, 0) @ factors + offset).clip(0, 255)
        off = np.abs(learned.colours(latents).astype(float) - expected)
        assert off.mean() < 1


def test_images_of_one_colour_leave_a_map_that_shows_it():
    """Nothing can be learned from them about the latents, and nothing explodes."""
    learned = LinearMap(4)
    latents = np.zeros((4, 8, 8))
    learned.learn(latents, np.full((8, 8, 3), 77.0))
    assert np.unique(learned.colours(latents)).tolist() == [77]


def test_an_image_is_averaged_over_the_cells():
    """One pixel a cell, the rows from the top."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:2, 4:] = 200
    pixels[2:, :4, 0] = (10, 20, 30, 40)
    found = shrunk(RawImage(width=8, height=4, pixels=pixels.tobytes(), seed=0), 2, 2)
    assert found[..., 0].tolist() == [[0, 200], [25, 0]]
    assert found[..., 1].tolist() == [[0, 200], [0, 0]]


@pytest.mark.parametrize("sampler", Sampler)
def test_the_estimate_becomes_the_image(sd, sampler, monkeypatch):
    """With every sampler, in the scale of the decoder: at the last step it is nearly there."""
    loop = StepLoop(sd, batch_limit=1)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def after(moved):
        seen.extend((row.estimate(), row.latents) for _, row in moved)
        return []

    monkeypatch.setattr(loop.previews, "after", after)
    loop.add("a", replace(REQUEST, sampler=sampler, steps=12))
    made(loop)
    apart = [float((one - other).norm() / other.norm()) for one, other in seen]
    assert apart[-1] < 0.15
    assert apart[-1] < apart[0]


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_previews_never_change_an_image(model, kind):
    """Watched from the first step on, between joined batch-mates, or not at all."""
    loaded = model(kind)

    def images(*watched):
        loop = StepLoop(loaded, batch_limit=3)
        for job_id in watched:
            loop.previews.watch(job_id, wanted=True)
        for number, job_id in enumerate(("a", "b")):
            loop.add(job_id, replace(REQUEST, seed=number, sampler="euler_a"))
        outcomes = made(loop)
        assert {one.job_id for one in of(Previewed, outcomes)} == set(watched)
        return {one.job_id: one.images for one in of(JobFinished, outcomes)}

    state = torch.get_rng_state()
    plain = images()
    assert images("a") == plain
    assert images("a", "b") == plain
    assert torch.equal(state, torch.get_rng_state())


def test_a_preview_has_a_pixel_for_every_latent_cell(sd):
    """And says after which step it was made; the step comes first."""
    loop = StepLoop(sd, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.add("a", replace(REQUEST, height=128))
    outcomes = made(loop)
    kinds = [type(one) for one in outcomes[:2]]
    assert kinds == [Stepped, Previewed]
    factor = sd.family.pipeline.vae_scale_factor
    for step, one in enumerate(of(Previewed, outcomes), 1):
        assert (one.step, one.width, one.height) == (step, 64 // factor, 128 // factor)
        assert len(one.pixels) == one.width * one.height * 3


def test_what_a_preview_shows_is_the_image_in_small(sd):
    """Of a decoder with random weights too, once one of its images was seen."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    made(loop)
    loop.previews.watch("b", wanted=True)
    loop.add("b", replace(REQUEST, seed=9))
    outcomes = made(loop)
    (image,) = of(JobFinished, outcomes)[0].images
    seen = of(Previewed, outcomes)[-1]
    shown = np.frombuffer(seen.pixels, np.uint8).astype(float)
    expected = shrunk(image, seen.width, seen.height).ravel()
    middle = np.abs(expected - expected.mean()).mean()
    assert np.abs(shown - expected).mean() < middle


def test_previews_come_twice_a_second_at_most(sd):
    """However fast the steps are."""
    loop = StepLoop(sd, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.add("a", replace(REQUEST, steps=10))
    outcomes = made(loop, seconds=preview.SECONDS / 4)
    assert [one.step for one in of(Previewed, outcomes)] == [1, 5, 9]


def test_nobody_watches_any_more(sd):
    """Then none is made, and nothing is left of the job."""
    loop = StepLoop(sd, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.previews.watch("a", wanted=False)
    loop.previews.watch("gone", wanted=False)
    loop.add("a", REQUEST)
    assert of(Previewed, made(loop)) == []


def test_a_preview_that_fails_costs_no_image(sd, monkeypatch):
    """Not even where memory runs out over it: it is no stage of the job."""

    def full(*_args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(preview, "decode", full)
    loop = StepLoop(sd, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.add("a", REQUEST)
    outcomes = made(loop)
    assert (of(Previewed, outcomes), of(OutOfMemoryHit, outcomes)) == ([], [])
    assert len(of(JobFinished, outcomes)) == 1


def test_a_decoder_that_rests_elsewhere_is_not_fetched_for_a_preview(sd):
    """Where memory is short previews begin with the first finished image."""
    loop = StepLoop(sd, batch_limit=1)
    loop.previews._model = replace(sd, offloaded=True)
    for job_id in ("a", "b"):
        loop.previews.watch(job_id, wanted=True)
        loop.add(job_id, REQUEST)
        seen = of(Previewed, made(loop))
        assert bool(seen) is (job_id == "b")


def test_a_model_with_a_safety_checker_gives_no_previews(sd, monkeypatch):
    """A small image would show what the checker is there to hide."""
    monkeypatch.setattr(sd.family, "has_safety_checker", True)
    previews = Previews(sd)
    previews.watch("a", wanted=True)
    nothing: list[Any] = [(None, None)]
    assert previews.after(nothing) == []
