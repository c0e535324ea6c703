"""What an engine says, before anybody believes it; the child's side is in ``children``."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from service.config.table import Config
from service.core.capacity import AdapterPlace, Capacity, MemoryUse
from service.core.events import (
    MOST_STEPS,
    AdaptersChanged,
    AttemptEvent,
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    OutOfMemoryHit,
    Previewed,
    StepBaseline,
    Stepped,
    UnloadReason,
)
from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage, StageTimes
from service.engine.channel import EVENTS, GarbageError, written
from service.engine.inspection import Inspector, longest_message
from service.engine.protocol import EngineEvent, EngineFailed, EngineReady, Generate, StageStarted
from tests.unit.engine.process import children

REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3, num_images=2)
WORK = {"one": Generate(job_id="one", epoch=1, request=REQUEST)}
MEMORY = MemoryUse(allocated=1, reserved=2, peak=3, total=4, host_resident=5)
TIMES = StageTimes(text_encode=0.1, denoise=1, vae_decode=0.2, safety=0.3)
FINISHED = JobFinished(
    job_id="one", epoch=1, images=children.images(REQUEST), times=TIMES, memory=MEMORY
)
STEPPED = Stepped(
    progress={"one": 1},
    shares={"one": 1.0},
    epochs={"one": 1},
    batch_size=2,
    pixels=8192,
    seconds=1,
    memory=MEMORY,
)
MODEL = replace(
    children.MODEL,
    ignored=("control_model",),
    samplers={Sampler.DDIM: ((1, 20), (22, 50)), Sampler.PNDM: ()},
)
READY = EngineReady(model=MODEL, memory=MEMORY)
HIT = OutOfMemoryHit(stage=Stage.VAE_DECODE, batch_size=1, rung=OomRung.FREE_CACHE, seconds=0.5)
INTERRUPTED = replace(FINISHED, interrupted_after=2)
GOOD: list[EngineEvent] = [
    StageStarted(stage=Stage.DENOISE, images=2),
    STEPPED,
    HIT,
    Capacity(available=10, needs={Stage.DENOISE: (-1.0, 2.5)}, relief={Stage.VAE_DECODE: 5}),
    BatchCalibrated(batch=2, size=512, seconds={1: 0.5, 2: 0.8}),
    StepBaseline(pixels=4096, images=2, seconds=0.5),
    AdaptersChanged(load_seconds=(0.5,), failures=1, held={AdapterPlace.HOST: 5}),
    ModelLoading(model_id="m"),
    ModelLoaded(model_id="m", model=MODEL, seconds=1.5, parked=True, memory=MEMORY),
    ModelFailed(model_id="m", code="model_error", detail="x", transient=True),
    ModelUnloaded(model_id="m", reason=UnloadReason.MEMORY),
    ModelsResident(device={"": 7}, host={"m": 5}),
    Previewed(job_id="one", epoch=1, step=1, width=8, height=8, pixels=bytes(192)),
    FINISHED,
    INTERRUPTED,
    JobFailed(job_id="one", epoch=1, code="generation_failed", detail="no idea", times=TIMES),
    JobCancelled(job_id="one", epoch=1, steps_done=2, times=TIMES),
]


wrong: Any = replace
"""As ``replace``, for values that no type allows."""


@pytest.fixture
def inspector() -> Inspector:
    """Return one of an engine that is ready and has one job, which it was told to end both ways."""
    made = Inspector(WORK, {"one"}, {"one"})
    made.check(READY)
    return made


@pytest.mark.parametrize("said", [*GOOD, READY, EngineFailed(code="model_error", detail="x")])
def test_every_message_arrives_as_it_was_sent(said):
    """Bytes that hold our own values are what they were."""
    assert EVENTS.read(written(said)) == said


def test_every_kind_of_message_is_tried_here():
    """A new one needs its rules."""
    tried = {type(said) for said in (*GOOD, READY, EngineFailed(code="x", detail="x"))}
    assert tried == set(get_args(EngineEvent))


@pytest.mark.parametrize("said", GOOD, ids=lambda said: type(said).__name__)
def test_what_can_be_true_passes(inspector, said):
    """No honest engine is killed."""
    assert inspector.check(said)


@pytest.mark.parametrize("said", [each for each in GOOD if isinstance(each, AttemptEvent)])
def test_what_an_earlier_attempt_has_left_is_no_news(said):
    """It is dropped, and nobody is killed for it; no attempt is later than the latest."""
    inspector = Inspector({"one": replace(WORK["one"], epoch=2)}, (), ())
    inspector.check(READY)
    assert not inspector.check(said)
    with pytest.raises(GarbageError, match="does not have"):
        inspector.check(replace(said, epoch=3))


def test_the_steps_of_an_earlier_attempt_are_no_progress():
    """The new one begins at its first step, though the other was further."""
    inspector = Inspector({"one": replace(WORK["one"], epoch=2)}, (), ())
    inspector.check(READY)
    assert inspector.check(replace(STEPPED, progress={"one": 3}))
    assert inspector.check(replace(STEPPED, epochs={"one": 2}))
    with pytest.raises(GarbageError, match="without an attempt"):
        inspector.check(replace(STEPPED, epochs={}))


@pytest.mark.parametrize("said", GOOD[1:], ids=lambda said: type(said).__name__)
def test_nothing_is_told_before_the_model_is_loaded(said):
    """But that a stage began."""
    fresh = Inspector(WORK, {"one"}, ())
    fresh.check(GOOD[0])
    with pytest.raises(GarbageError, match="before the model was loaded"):
        fresh.check(said)


def test_progress_may_stand_still(inspector):
    """Two images of a job move in turns: their mean is rounded down."""
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
        wrong(EngineFailed(code="model_error", detail="x"), transient=1),
    ],
)
def test_a_model_must_be_one(said):
    """What the service shows of it are texts and numbers."""
    with pytest.raises(GarbageError):
        Inspector({}, (), ()).check(EVENTS.read(written(said)))


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
        wrong(FINISHED, prompt_tokens=-1),
        wrong(FINISHED, prompt_tokens_cut=-1),
        wrong(FINISHED, images=(None, None)),
        wrong(FINISHED, interrupted_after=3),
        wrong(FINISHED, interrupted_after=-1),
        wrong(FINISHED, times=wrong(TIMES, safety=float("nan"))),
        wrong(HIT, stage=""),
        wrong(HIT, stage="x" * 65),
        wrong(HIT, stage="undress"),
        wrong(HIT, rung="pray"),
        wrong(GOOD[0], stage="denoised"),
        wrong(Capacity(available=1, needs={}), relief={"decode": 1}),
        OutOfMemoryHit(stage=Stage.DENOISE, batch_size=1, seconds=-1),
        StageStarted(stage=Stage.DENOISE, images=-1),
        AdaptersChanged(load_seconds=(-1.0,)),
        AdaptersChanged(evictions=-1),
        AdaptersChanged(held={AdapterPlace.GPU: -1}),
        ModelLoaded(model_id="m", model=MODEL, seconds=-1),
        ModelLoaded(model_id="m", model=wrong(MODEL, load_seconds=float("nan")), seconds=1),
        ModelLoaded(model_id="m", model=MODEL, seconds=1, memory=wrong(MEMORY, total=-1)),
        ModelsResident(device={"": -7}),
        ModelsResident(host={"m": -7}),
        wrong(ModelUnloaded(model_id="m", reason=UnloadReason.IDLE), reason="bored"),
        wrong(ModelFailed(model_id="m", code="model_error", detail="x"), detail=None),
        StepBaseline(pixels=0, images=1, seconds=0.5),
        StepBaseline(pixels=1, images=1, seconds=float("inf")),
        Capacity(available=-1, needs={}),
        BatchCalibrated(batch=3, size=512, seconds={1: 0.5, 2: 0.8}),
        BatchCalibrated(batch=0, size=512, seconds={0: 0.5}),
        BatchCalibrated(batch=1, size=512, seconds={1: float("inf")}),
        Capacity(available=1, needs={Stage.DENOISE: (float("nan"), 1.0)}),
        Previewed(job_id="one", epoch=1, step=1, width=8, height=8, pixels=bytes(191)),
        Previewed(job_id="one", epoch=1, step=4, width=8, height=8, pixels=bytes(192)),
        Previewed(job_id="two", epoch=1, step=1, width=8, height=8, pixels=bytes(192)),
    ],
)
def test_a_field_of_another_kind_is_told(inspector, said):
    """Whatever it is, the service raises nothing else."""
    with pytest.raises(GarbageError):
        inspector.check(EVENTS.read(written(said)))


@pytest.mark.parametrize(("settings", "side"), [({"max_size": 1024}, 1024), ({}, 1536)])
def test_the_longest_message_holds_the_largest_request(settings, side):
    """As many images of the largest size as one request may ask for, whatever the model is."""
    config = Config(max_images=2, **settings)
    largest = GenerationSpec(prompt="a cat", width=side, height=side, num_images=2)
    message = JobFinished(job_id="x" * 32, epoch=1, images=children.images(largest))
    assert len(written(message)) < longest_message(config)


def test_a_host_has_ends_of_the_engine_before():
    """They come while another engine loads its model; nothing else does."""
    fresh = Inspector(WORK, {"one"}, (), hosted=True)
    for said in (FINISHED, JobFailed(job_id="one", epoch=1, code="generation_failed", detail="")):
        assert fresh.check(said)
    with pytest.raises(GarbageError, match="before the model was loaded"):
        fresh.check(STEPPED)


@pytest.mark.parametrize("steps", [0, -1, MOST_STEPS + 1])
def test_a_report_of_steps_has_a_number_of_them_that_there_can_be(inspector, steps):
    """Each is counted."""
    with pytest.raises(GarbageError, match="a report is of no step"):
        inspector.check(replace(STEPPED, steps=steps))
