"""Jobs of two passes: their steps, sizes and groups, and what ends them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.core.events import (
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Previewed,
    Stepped,
)
from service.core.inputs import Hires
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.order import Sample, Task, next_batch
from service.diffusion.loop.starts.choice import start_of
from service.diffusion.loop.step_loop import StepLoop
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

HIRES = Hires(scale=2, steps=4, strength=0.5)
REQUEST = GenerationSpec(prompt="a cat", width=16, height=16, steps=3, seed=5, hires=HIRES)
LANCZOS = replace(REQUEST, hires=replace(HIRES, resize="lanczos"))
LARGE = replace(REQUEST, width=32, height=32, hires=None)
BOTH = pytest.mark.parametrize("request_", [REQUEST, LANCZOS], ids=["latent", "lanczos"])


@BOTH
def test_steps_of_both_passes_count(sd: Model, request_: GenerationSpec) -> None:
    """The second pass has its own size and steps; the image has the size of the second."""
    loop = StepLoop(sd, batch_limit=2)
    loop.add("a", request_)

    *steps, finished = drained(loop)

    moved = of(Stepped, steps)
    assert [stepped.progress["a"] for stepped in moved] == [1, 2, 3, 4, 5]
    assert [stepped.pixels for stepped in moved] == [256] * 3 + [1024] * 2
    assert isinstance(finished, JobFinished)
    (image,) = finished.images
    assert (image.width, image.height, image.seed) == (32, 32, 5)
    assert finished.interrupted_after is None
    assert bool(finished.times.vae_encode) == (request_ is LANCZOS)


def test_each_pass_shares_steps_with_images_of_its_size(sd: Model) -> None:
    """Others of the first size move with the first pass, and of the second with the second."""
    loop = StepLoop(sd, batch_limit=4)
    loop.add("both", REQUEST)
    loop.add("small", replace(REQUEST, hires=None))
    loop.add("large", replace(LARGE, steps=9))

    together = {frozenset(stepped.progress) for stepped in of(Stepped, drained(loop))}

    assert {frozenset({"both", "small"}), frozenset({"both", "large"})} <= together
    assert not any({"small", "large"} <= names for names in together)


@BOTH
def test_images_of_one_job_go_on_by_themselves(sd: Model, request_: GenerationSpec) -> None:
    """Each is the image of its seed, whichever pass the others are in."""
    together, single = StepLoop(sd, batch_limit=1), StepLoop(sd, batch_limit=1)
    together.add("a", replace(request_, num_images=2))
    single.add("a", replace(request_, seed=6))

    (both,) = of(JobFinished, drained(together))
    (alone,) = of(JobFinished, drained(single))

    assert both.images[1] == alone.images[0]
    assert both.images[0].pixels != both.images[1].pixels


def test_work_left_counts_the_second_pass(sd: Model) -> None:
    """Its steps count with their own pixels; of an interrupted job only one step is left."""
    key, start = sd.batch_key(REQUEST), start_of(REQUEST, None, sd)
    task = Task(job_id="a", epoch=1, request=REQUEST, key=key, arrived=0, start=start)
    (sample,) = task.samples

    assert sample.work_left == 3 * 256 + 2 * 1024
    task.interrupted = True
    assert sample.work_left == 256


def test_a_sampler_that_cannot_draw_the_second_pass_costs_no_work(sd: Model) -> None:
    """It is refused before the first step."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, sampler="lcm", steps=2, hires=replace(HIRES, steps=51)))

    outcomes = drained(loop)

    (failed,) = of(JobFailed, outcomes)
    assert failed.code == "sampler_unsuitable"
    assert not of(Stepped, outcomes)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_cancel(sd: Model, steps: int) -> None:
    """A job leaves in either pass and between them, with the steps that it has done."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    done = 0
    while done < steps:
        done += len(of(Stepped, loop.step()))

    loop.cancel("a")
    (cancelled,) = drained(loop)

    assert cancelled == JobCancelled(job_id="a", epoch=1, steps_done=steps)


@BOTH
@pytest.mark.parametrize(("steps", "side"), [(1, 16), (3, 16), (4, 32)])
def test_interrupt(sd: Model, request_: GenerationSpec, steps: int, side: int) -> None:
    """An image has the size of the pass that it ended in, and no other pass begins."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", request_)
    done = 0
    while done < steps:
        done += len(of(Stepped, loop.step()))

    loop.interrupt("a")
    (finished,) = drained(loop)

    assert isinstance(finished, JobFinished)
    assert finished.interrupted_after == steps
    assert (finished.images[0].width, finished.images[0].height) == (side, side)


def test_an_interrupt_between_the_passes_takes_one_step(sd: Model) -> None:
    """What the second pass begins with is noise, of which no image can be made."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    for _ in range(4):
        loop.step()

    loop.interrupt("a")
    stepped, finished = drained(loop)

    assert isinstance(stepped, Stepped)
    assert isinstance(finished, JobFinished)
    assert finished.interrupted_after == 4
    assert finished.images[0].width == 32


def test_previews_of_both_passes(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the size of its pass, and the steps of both count."""
    monkeypatch.setattr("service.diffusion.loop.preview.SECONDS", 0.0)
    loop = StepLoop(sd, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.add("a", REQUEST)

    found = of(Previewed, drained(loop))

    cells = 16 // sd.family.limits.scale_factor
    assert [each.step for each in found] == [1, 2, 3, 4, 5]
    assert [each.width for each in found] == [cells] * 3 + [2 * cells] * 2


def test_memory_that_does_not_suffice_for_the_second_pass(sd: Model) -> None:
    """The job ends with an answer that names the larger size; what runs with it goes on."""
    loop = StepLoop(sd, batch_limit=2)
    loop.add("both", REQUEST)
    loop.add("small", replace(REQUEST, hires=None, steps=2))

    def fault(stage: str, images: int) -> None:
        begun = [sample.in_second for task in loop._tasks.values() for sample in task.samples]
        if (stage, images) == ("denoise", 1) and any(begun):
            raise no_memory()

    loop.fault = fault
    outcomes = drained(loop)

    (failed,) = of(JobFailed, outcomes)
    assert (failed.job_id, failed.code) == ("both", "out_of_memory")
    assert "32x32" in failed.detail
    assert [each.job_id for each in of(JobFinished, outcomes)] == ["small"]


@pytest.mark.parametrize("stage", ["vae_decode", "vae_encode"])
def test_memory_that_runs_out_between_the_passes_is_found(sd: Model, stage: str) -> None:
    """Both the decode and the encode have the recovery that they have elsewhere."""
    alone, loop = (
        StepLoop(sd, batch_limit=1),
        StepLoop(sd, batch_limit=1, fault=raising((stage, 1, 1), error=no_memory)),
    )
    for each in (alone, loop):
        each.add("a", LANCZOS)

    outcomes = drained(loop)

    (hit,) = of(OutOfMemoryHit, outcomes)
    assert hit.stage == stage
    assert of(JobFinished, outcomes)[0].images == of(JobFinished, drained(alone))[0].images


@pytest.mark.parametrize("stage", ["vae_decode", "vae_encode"])
def test_an_error_between_the_passes_ends_one_job(sd: Model, stage: str) -> None:
    """All others go on."""
    loop = StepLoop(sd, batch_limit=2, fault=raising((stage, 1, 1), error=lambda: ValueError("x")))
    loop.add("both", LANCZOS)
    loop.add("other", replace(REQUEST, hires=None, steps=9))

    outcomes = drained(loop)

    assert [each.job_id for each in of(JobFailed, outcomes)] == ["both"]
    assert [each.job_id for each in of(JobFinished, outcomes)] == ["other"]


def test_a_group_is_of_the_pass(sd: Model) -> None:
    """A batch that was made smaller for the second pass is not for the first."""
    loop = StepLoop(sd, batch_limit=4)
    loop.add("a", REQUEST)
    (sample,) = loop._tasks["a"].samples
    first = sample.key
    for _ in range(4):
        loop.step()

    assert isinstance(sample, Sample)
    assert sample.in_second
    assert sample.key != first
    assert sample.key == sd.batch_key(LARGE)
    assert list(next_batch([sample], loop.limits, 0)) == [sample]


@BOTH
def test_a_model_for_inpainting_draws_two_passes(
    model: Callable[[str], Model], request_: GenerationSpec
) -> None:
    """Both are drawn as a text is with such a model: with a white mask."""
    loop = StepLoop(model("inpaint"), batch_limit=1)
    loop.add("a", request_)

    (finished,) = of(JobFinished, drained(loop))

    assert finished.images[0].width == 32
    assert finished.times.vae_encode > 0
