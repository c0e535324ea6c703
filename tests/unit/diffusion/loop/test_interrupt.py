"""A job that ends early, with its unfinished images."""

from dataclasses import replace

import pytest
import torch

from service.core.events import JobFailed, JobFinished, OutOfMemoryHit, Stepped
from service.core.spec import GenerationSpec
from service.core.stage import OomRung
from service.diffusion.load import Model
from service.diffusion.loop.decode import decode
from service.diffusion.loop.step_loop import StepLoop
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

REQUEST = GenerationSpec(prompt="a cat", width=16, height=16, steps=6, seed=5)


def test_the_image_is_what_the_last_step_was_on_the_way_to(sd: Model) -> None:
    """No further step is done; what is decoded is the estimate of the finished latents."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.step()
    loop.step()
    (sample,) = loop._tasks["a"].samples
    assert sample.row is not None
    with torch.no_grad():
        expected = decode(sd, sample.row.estimate(), REQUEST.seed)

    loop.interrupt("a")
    (finished,) = drained(loop)

    assert isinstance(finished, JobFinished)
    assert (finished.interrupted_after, finished.images) == (2, (expected,))


def test_an_image_that_has_not_begun_takes_one_step(sd: Model) -> None:
    """All images of a job come, and the steps are their mean, rounded down."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, num_images=2))
    for _ in range(3):
        loop.step()

    loop.interrupt("a")
    outcomes = drained(loop)

    (finished,) = of(JobFinished, outcomes)
    assert [image.seed for image in finished.images] == [5, 6]
    assert len(of(Stepped, outcomes)) == 1
    assert finished.interrupted_after == 2


def test_a_job_that_is_interrupted_before_its_first_step_has_one(sd: Model) -> None:
    """It has an image all the same; an id that nobody has changes nothing."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.interrupt("a")
    loop.interrupt("unknown")

    stepped, finished = drained(loop)

    assert isinstance(stepped, Stepped)
    assert isinstance(finished, JobFinished)
    assert finished.interrupted_after == 1


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_sde", "lcm", "pndm", "unipc"])
def test_other_jobs_are_drawn_as_ever(sd: Model, sampler: str) -> None:
    """Whatever the sampler is, in the same batch."""
    alone, together = StepLoop(sd, batch_limit=3), StepLoop(sd, batch_limit=3)
    alone.add("b", REQUEST)
    together.add("a", replace(REQUEST, sampler=sampler))
    together.add("b", REQUEST)
    together.step()
    together.interrupt("a")

    early, late = of(JobFinished, drained(together))

    (wanted,) = of(JobFinished, drained(alone))
    assert (early.job_id, late.job_id) == ("a", "b")
    assert early.interrupted_after < REQUEST.steps
    assert late.interrupted_after is None
    pairs = zip(late.images[0].pixels, wanted.images[0].pixels, strict=True)
    assert sum(abs(a - b) <= 1 for a, b in pairs) >= 0.999 * len(wanted.images[0].pixels)


def test_an_interrupt_after_the_last_step_changes_nothing(sd: Model) -> None:
    """The job did all that was asked for, and says so."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, steps=2))
    loop.step()
    loop.step()
    loop.interrupt("a")

    (finished,) = drained(loop)

    assert isinstance(finished, JobFinished)
    assert finished.interrupted_after is None


def test_an_unfinished_image_goes_through_the_safety_checker(
    sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds unsafe is black, as in a finished image."""
    monkeypatch.setattr(sd.family, "has_safety_checker", True)
    monkeypatch.setattr(sd.family, "is_unsafe", lambda _image: True)
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.step()
    loop.interrupt("a")

    (finished,) = of(JobFinished, drained(loop))

    assert finished.interrupted_after == 1
    assert finished.images[0].unsafe
    assert not any(finished.images[0].pixels)


def test_memory_that_runs_out_at_the_decode_is_found(sd: Model) -> None:
    """The ladder of recovery is the same; only the last rung fails the job."""
    loop = StepLoop(sd, batch_limit=1, fault=raising(("vae_decode", 1, 1), error=no_memory))
    loop.add("a", REQUEST)
    loop.step()
    loop.interrupt("a")

    outcomes = drained(loop)

    (hit,) = of(OutOfMemoryHit, outcomes)
    assert hit.rung is OomRung.FREE_CACHE
    assert not of(JobFailed, outcomes)
    assert of(JobFinished, outcomes)[0].interrupted_after == 1
