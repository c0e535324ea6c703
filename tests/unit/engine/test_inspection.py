"""What an engine says, before anybody believes it; the child's side is in ``children``."""

import pickle
from dataclasses import replace
from typing import Any, get_args

import pytest

from service.config import Config
from service.diffusion.generation import (
    Calibrated,
    Capacity,
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    MemoryUse,
    OutOfMemoryHit,
    Previewed,
    StageTimes,
    Stepped,
    Usual,
)
from service.engine.inspection import Inspector, longest_message, parsed
from service.engine.messages import Began, EngineFailed, EngineReady, Said
from service.engine.wire import GarbageError
from tests.unit.engine import children

REQUEST = GenerationRequest(prompt="a cat", width=64, height=64, steps=3, num_images=2)
MEMORY = MemoryUse(allocated=1, reserved=2, peak=3, total=4, host_resident=5)
TIMES = StageTimes(text_encode=0.1, denoise=1, vae_decode=0.2, safety=0.3)
FINISHED = JobFinished(
    job_id="one", pictures=children.pictures(REQUEST), times=TIMES, memory=MEMORY
)
STEPPED = Stepped(
    progress={"one": 1}, batch_size=2, pixels=8192, seconds=1, shares={"one": 1.0}, memory=MEMORY
)
MODEL = replace(
    children.MODEL, ignored=("control_model",), samplers={"ddim": ((1, 20), (22, 50)), "pndm": ()}
)
READY = EngineReady(model=MODEL, memory=MEMORY)
GOOD: list[Said] = [
    Began(stage="denoise", pictures=2),
    STEPPED,
    OutOfMemoryHit(stage="vae_decode", batch_size=1, rung="free_cache", seconds=0.5),
    Capacity(available=10, needs={"denoise": (-1.0, 2.5)}, relief={"vae_decode": 5}),
    Calibrated(batch=2, size=512, seconds={1: 0.5, 2: 0.8}),
    Usual(pixels=4096, pictures=2, seconds=0.5),
    Previewed(job_id="one", step=1, width=8, height=8, pixels=bytes(192)),
    FINISHED,
    JobFailed(job_id="one", code="generation_failed", detail="no idea", times=TIMES),
    JobCancelled(job_id="one", steps_done=2, times=TIMES),
]


wrong: Any = replace
"""As ``replace``, for values that no type allows."""


@pytest.fixture
def inspector() -> Inspector:
    """Return one of an engine that is ready and has one job, which it was told to stop."""
    made = Inspector({"one": REQUEST}, {"one"})
    made.check(READY)
    return made


@pytest.mark.parametrize("said", [*GOOD, READY, EngineFailed(code="model_error", detail="x")])
def test_every_message_arrives_as_it_was_sent(said):
    """Bytes that hold our own values are what they were."""
    assert parsed(pickle.dumps(said)) == said


def test_every_kind_of_message_is_tried_here():
    """A new one needs its rules."""
    tried = {type(said) for said in (*GOOD, READY, EngineFailed(code="x", detail="x"))}
    assert tried == set(get_args(Said))


@pytest.mark.parametrize("said", GOOD, ids=lambda said: type(said).__name__)
def test_what_can_be_true_passes(inspector, said):
    """No honest engine is killed."""
    inspector.check(said)


@pytest.mark.parametrize("said", GOOD[1:], ids=lambda said: type(said).__name__)
def test_nothing_is_told_before_the_model_is_loaded(said):
    """But that a stage began."""
    fresh = Inspector({"one": REQUEST}, {"one"})
    fresh.check(GOOD[0])
    with pytest.raises(GarbageError, match="before the model was loaded"):
        fresh.check(said)


def test_progress_may_stand_still(inspector):
    """Two pictures of a job move in turns: their mean is rounded down."""
    inspector.check(STEPPED)
    inspector.check(STEPPED)
    inspector.check(replace(STEPPED, progress={"one": 3}))
    with pytest.raises(GarbageError, match="from step 3 to 1 of 3"):
        inspector.check(STEPPED)


@pytest.mark.parametrize(
    "said",
    [
        wrong(READY, model=wrong(children.MODEL, load_seconds=float("inf"))),
        wrong(READY, model=wrong(children.MODEL, version=None)),
        wrong(READY, model=None),
        wrong(READY, model=wrong(children.MODEL, prediction_type=1)),
        wrong(READY, model=wrong(children.MODEL, configuration=None)),
        wrong(READY, model=wrong(children.MODEL, ignored=(1,))),
        wrong(READY, model=wrong(children.MODEL, samplers={"ddim": ((1, -2),)})),
        wrong(READY, model=wrong(children.MODEL, samplers={"ddim": (1, 2)})),
        wrong(READY, model=wrong(children.MODEL, samplers=None)),
        wrong(READY, memory=wrong(MEMORY, total=-1)),
        wrong(EngineFailed(code="model_error", detail="x"), detail=None),
        wrong(EngineFailed(code="model_error", detail="x"), passing=1),
    ],
)
def test_a_model_must_be_one(said):
    """What the service shows of it are texts and numbers."""
    with pytest.raises(GarbageError):
        Inspector({}, ()).check(said)


@pytest.mark.parametrize(
    "said",
    [
        wrong(STEPPED, progress={}),
        wrong(STEPPED, progress=None),
        wrong(STEPPED, progress={"one": True}),
        wrong(STEPPED, batch_size=0),
        wrong(STEPPED, pixels=1.5),
        wrong(STEPPED, seconds="1"),
        wrong(STEPPED, memory=None),
        wrong(FINISHED, prompt_tokens_cut=-1),
        wrong(FINISHED, pictures=(None, None)),
        wrong(FINISHED, times=wrong(TIMES, safety=float("nan"))),
        OutOfMemoryHit(stage="", batch_size=1),
        OutOfMemoryHit(stage="x" * 65, batch_size=1),
        OutOfMemoryHit(stage="denoise", batch_size=1, seconds=-1),
        Began(stage="denoise", pictures=-1),
        Usual(pixels=0, pictures=1, seconds=0.5),
        Usual(pixels=1, pictures=1, seconds=float("inf")),
        Capacity(available=-1, needs={}),
        Calibrated(batch=3, size=512, seconds={1: 0.5, 2: 0.8}),
        Calibrated(batch=0, size=512, seconds={0: 0.5}),
        Calibrated(batch=1, size=512, seconds={1: float("inf")}),
        Capacity(available=1, needs={"denoise": (float("nan"), 1.0)}),
        Previewed(job_id="one", step=1, width=8, height=8, pixels=bytes(191)),
        Previewed(job_id="one", step=4, width=8, height=8, pixels=bytes(192)),
        Previewed(job_id="two", step=1, width=8, height=8, pixels=bytes(192)),
    ],
)
def test_a_field_of_another_kind_is_told(inspector, said):
    """Whatever it is, the service raises nothing else."""
    with pytest.raises(GarbageError):
        inspector.check(said)


def test_the_longest_message_holds_the_largest_request():
    """As many pictures of the largest size as one request may ask for."""
    config = Config(max_images=2, max_size=1024)
    largest = GenerationRequest(prompt="a cat", width=1024, height=1024, num_images=2)
    message = JobFinished(job_id="x" * 32, pictures=children.pictures(largest))
    assert len(pickle.dumps(message)) < longest_message(config)
