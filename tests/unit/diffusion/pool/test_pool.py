"""Several models in one engine: what each draws, and loading while others draw."""

import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch

from service.core.capacity import Capacity
from service.core.events import (
    MODEL_NOT_LOADED,
    JobFailed,
    JobFinished,
    ModelEvent,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    Previewed,
    StepBaseline,
    Stepped,
    UnloadReason,
)
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.loop.trials.trial import Trial
from service.diffusion.pool.opener import Taught
from service.errors import ModelError, ModelUnsuitable
from tests.unit.diffusion.pool.conftest import Machine
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3, seed=5)
OTHER = replace(REQUEST, model="sdxl", seed=9)


def images(said: Iterable[object], job_id: str) -> tuple[RawImage, ...]:
    (found,) = (each.images for each in of(JobFinished, said) if each.job_id == job_id)
    return tuple(found)


def assert_alike(found: tuple[RawImage, ...], wanted: tuple[RawImage, ...]) -> None:
    """Compare images of which one was drawn in a larger batch."""
    pairs = zip(found[0].pixels, wanted[0].pixels, strict=True)
    assert sum(abs(a - b) <= 1 for a, b in pairs) >= 0.999 * len(found[0].pixels)


def alone(model: Model, request: GenerationSpec) -> tuple[RawImage, ...]:
    loop = StepLoop(model, batch_limit=1)
    loop.add("alone", request)
    return images(drained(loop), "alone")


def test_rows_of_two_models_are_drawn_as_each_alone(
    machine: Callable[..., Machine], model: Callable[..., Model]
) -> None:
    """They take turns, step by step; every report names its model."""
    both = machine()
    both.pool.load("sdxl")
    both.until(ModelLoaded)
    for number in range(2):
        both.pool.add(f"a{number}", replace(REQUEST, seed=number), 1)
        both.pool.add(f"b{number}", replace(OTHER, seed=number), 1)
    said = both.rest()
    for number in range(2):
        assert_alike(images(said, f"a{number}"), alone(model("sd"), replace(REQUEST, seed=number)))
        assert_alike(images(said, f"b{number}"), alone(model("sdxl"), replace(OTHER, seed=number)))
    steps = of(Stepped, said)
    assert {each.model_id for each in steps[:3]} == {each.model_id for each in steps[3:]}
    assert {each.model_id: set(each.progress) for each in steps} == {
        "": {"a0", "a1"},
        "sdxl": {"b0", "b1"},
    }


def test_a_batch_steps_on_while_a_model_is_read(machine: Callable[..., Machine]) -> None:
    """A whole image is drawn meanwhile; then the model is there, with what its trial taught."""
    both = machine()
    both.opener.proceed.clear()
    both.pool.load("sdxl")
    both.pool.add("a", REQUEST, 1)
    said = both.until(JobFinished)
    assert both.pool.loading
    assert of(ModelEvent, said) == [ModelLoading(model_id="sdxl")]
    both.opener.proceed.set()
    said = both.until(ModelLoaded)
    (loaded,) = of(ModelLoaded, said)
    assert (loaded.model_id, loaded.model.family, loaded.parked) == ("sdxl", "sdxl", False)
    assert {each.model_id for each in of(StepBaseline, said)} == {"sdxl"}
    assert of(ModelsResident, both.pool.news())[-1].host.keys() == {"", "sdxl"}


def test_trial_images_are_made_between_the_steps_of_others(
    machine: Callable[..., Machine], model: Callable[..., Model]
) -> None:
    """The running image is what it would be alone, and sees no pause of a whole trial."""
    both = machine()
    stages: list[Stage] = []
    both.opener.fault = lambda stage, _images: stages.append(stage)
    both.pool.load("sdxl")
    while Stage.LOAD not in stages[1:] or both.pool.loading:
        both.pool.step()
    del stages[:]
    both.pool.add("a", REQUEST, 1)
    said = both.rest()
    assert images(said, "a") == alone(model("sd"), REQUEST)
    assert [type(each) for each in said if isinstance(each, JobFinished | ModelLoaded)] == [
        JobFinished,
        ModelLoaded,
    ]


def test_a_model_that_is_there_answers_at_once(machine: Callable[..., Machine]) -> None:
    """And is not read again."""
    both = machine()
    both.pool.load("")
    (said,) = both.pool.step()
    assert isinstance(said, ModelLoaded)
    assert (said.model_id, said.seconds) == ("", 0.0)
    assert both.opener.opened == [""]


@pytest.mark.parametrize("asked", ["sdxl", "never heard of"])
def test_a_job_whose_model_is_not_loaded_costs_nothing(
    machine: Callable[..., Machine], asked: str
) -> None:
    """The service asks for the model and runs the job again."""
    both = machine()
    both.pool.add("a", replace(OTHER, model=asked), 3)
    (said,) = both.pool.step()
    assert isinstance(said, JobFailed)
    assert (said.job_id, said.epoch, said.code) == ("a", 3, MODEL_NOT_LOADED)
    assert not both.pool.busy


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (ModelUnsuitable("It is no model."), "model_unsuitable", False),
        (ModelError("The disk is away.", transient=True), "model_error", True),
        (ZeroDivisionError("oh"), "model_error", False),
    ],
)
def test_a_load_that_fails_leaves_the_others(
    machine: Callable[..., Machine], error: Exception, code: str, transient: bool
) -> None:
    """The jobs that run go on, and the next load begins."""
    both = machine()
    both.opener.errors.append(error)
    both.pool.add("a", REQUEST, 1)
    both.pool.load("sdxl")
    both.pool.load("lcm")
    said = both.rest()
    (failed,) = of(ModelFailed, said)
    assert (failed.model_id, failed.code, failed.transient) == ("sdxl", code, transient)
    assert [each.model_id for each in of(ModelLoaded, said)] == ["lcm"]
    assert of(JobFinished, said)


def test_a_default_model_that_does_not_come_back_is_named(machine: Callable[..., Machine]) -> None:
    """Requests leave its name out; who reads of the failure needs it."""
    one = machine()
    one.pool.unload("", UnloadReason.IDLE)
    one.opener.errors.append(RuntimeError("no such driver"))
    one.pool.load("")
    (failed,) = of(ModelFailed, one.rest())
    assert failed.model_id == ""
    assert failed.detail == "The model demo cannot be loaded (RuntimeError)."


def test_a_model_that_draws_nothing_is_refused(machine: Callable[..., Machine]) -> None:
    """Its trial images tell; its memory is free again."""

    def broken(loop: StepLoop) -> Trial[Taught]:
        """Make the trial images of a model whose decoder makes no numbers."""
        torch.nn.init.constant_(loop.model.family.decoder.decoder.conv_out.weight, torch.nan)
        return (yield from trial(loop))

    both = machine()
    trial = both.opener.trial
    both.opener.trial = broken  # type: ignore[method-assign]
    both.pool.load("lcm")
    (failed,) = of(ModelFailed, both.rest())
    assert failed.code == "model_unsuitable"
    assert list(both.residents.members) == [""]


def test_who_wants_previews_gets_them_of_any_model(machine: Callable[..., Machine]) -> None:
    """Also where it was asked before the model was loaded."""
    both = machine()
    both.pool.watch("b", wanted=True)
    both.pool.watch("c", wanted=True)
    both.pool.watch("c", wanted=False)
    both.pool.load("sdxl")
    both.until(ModelLoaded)
    both.pool.add("b", OTHER, 1)
    both.pool.add("c", OTHER, 1)
    assert {each.job_id for each in of(Previewed, both.rest())} == {"b"}


def test_a_cancelled_job_leaves_the_batch_of_its_model(machine: Callable[..., Machine]) -> None:
    """Whichever that is."""
    both = machine()
    both.pool.load("sdxl")
    both.until(ModelLoaded)
    both.pool.add("b", OTHER, 1)
    both.pool.step()
    both.pool.cancel("b")
    assert not of(JobFinished, both.rest())


def test_an_evicted_model_leaves_nothing_behind(machine: Callable[..., Machine]) -> None:
    """Nobody but the pool holds it."""
    both = machine()
    loop = weakref.ref(both.residents.members[""].loop)
    both.pool.add("a", REQUEST, 1)
    both.rest()
    both.pool.unload("", UnloadReason.IDLE)
    assert both.pool.step() == [ModelUnloaded(model_id="", reason=UnloadReason.IDLE)]
    gc.collect()
    assert loop() is None
    assert not both.pool.busy
    both.pool.load("")
    (loaded,) = of(ModelLoaded, both.rest())
    assert not loaded.parked


def test_a_model_with_jobs_is_not_unloaded(machine: Callable[..., Machine]) -> None:
    """Nothing answers; the service never asks for that."""
    both = machine()
    both.pool.add("a", REQUEST, 1)
    both.pool.unload("", UnloadReason.ASKED)
    assert not of(ModelUnloaded, both.rest())


def test_memory_that_runs_out_for_one_takes_the_idle_others_away(
    machine: Callable[..., Machine],
) -> None:
    """Before anything slower is tried; the image is drawn."""
    both = machine()
    both.pool.load("sdxl")
    both.until(ModelLoaded)
    both.residents.members[""].loop.fault = raising((Stage.DENOISE, 1, 1), error=no_memory)
    both.pool.add("a", REQUEST, 1)
    said = both.rest()
    assert of(ModelUnloaded, said) == [ModelUnloaded(model_id="sdxl", reason=UnloadReason.MEMORY)]
    assert [each.rung for each in said if hasattr(each, "rung")] == [OomRung.FREE_CACHE]
    assert of(JobFinished, said)


def test_memory_of_idle_models_counts_as_free(machine: Callable[..., Machine]) -> None:
    """An image is not refused for a model that nobody uses now: it gives way to it."""
    both = machine()
    both.pool.load("sdxl")
    both.until(ModelLoaded)
    idle = both.residents.members["sdxl"].size
    (told,) = [each for each in of(Capacity, both.pool.news()) if each.model_id == ""]
    both.pool.add("b", OTHER, 1)
    (then,) = [each for each in of(Capacity, both.pool.news()) if each.model_id == ""]
    assert told.available - then.available == pytest.approx(idle, abs=2**26)
