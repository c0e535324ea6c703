"""Engine children without torch: each is what one broken or healthy engine would do.

A prompt is an order: ``killed``, ``segfault``, ``exits``, ``raises``, ``hangs``, ``chatters``
and the names in ``SAID``. One that ends in ``once FILE`` is obeyed while the file is not there.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.config.table import Config
from service.core.events import JobCancelled, JobFailed, JobFinished, StepBaseline, Stepped
from service.core.image import RawImage
from service.core.inputs import EngineInputs
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.stage import Stage, StageTimes
from service.engine.channel import Channel, written
from service.engine.protocol import (
    Cancel,
    EngineExited,
    EngineFailed,
    EngineReady,
    Generate,
    Interrupt,
    Shutdown,
    StageStarted,
)

Pipe = Channel[Any, Any]

EPOCHS: defaultdict[str, int] = defaultdict(lambda: 1)
"""The latest attempt at each job of this process."""

MODEL = ModelInfo(
    model_id="none",
    version="none-1",
    family="sd",
    demo=False,
    device="cpu",
    gpu=False,
    dtype="float32",
    load_seconds=0.0,
)


def images(request: GenerationSpec) -> tuple[RawImage, ...]:
    """Return grey images of the size asked for."""
    size = request.drawn_size
    pixels = bytes([128]) * (size[0] * size[1] * 3)
    return tuple(
        RawImage(width=size[0], height=size[1], pixels=pixels, seed=seed) for seed in request.seeds
    )


def finished(job_id: str, request: GenerationSpec) -> JobFinished:
    """Return the good end of a job."""
    return JobFinished(job_id=job_id, epoch=EPOCHS[job_id], images=images(request))


def returned(job_id: str, request: GenerationSpec, inputs: EngineInputs) -> JobFinished:
    """Return the end of a job whose input image comes back as it is."""
    good = finished(job_id, request)
    return replace(good, images=tuple(replace(e, pixels=inputs.image) for e in good.images))


def step(job_id: str, done: int, request: GenerationSpec, **fields: Any) -> Stepped:
    """Return a step of a job alone."""
    values: dict[str, Any] = {
        "progress": {job_id: done},
        "batch_size": request.num_images,
        "pixels": request.width * request.height * request.num_images,
        "seconds": 0.01,
        "shares": {job_id: 0.01},
        "epochs": {job_id: EPOCHS[job_id]},
    }
    return Stepped(**(values | fields))


class Bomb:
    """Calls what it likes when it is unpickled, which nobody does."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (66,)


def _broken(job_id: str, request: GenerationSpec, **fields: Any) -> JobFinished:
    (good,) = images(request)
    return JobFinished(
        job_id=job_id, epoch=EPOCHS[job_id], images=(RawImage(**(vars(good) | fields)),)
    )


def _raw(data: bytes) -> Callable[..., None]:
    return lambda pipe, _job_id, _request: pipe.pipe.send_bytes(data)


def _objects(make: Callable[[str, GenerationSpec], list[Any]]) -> Callable[..., None]:
    def send(pipe: Pipe, job_id: str, request: GenerationSpec) -> None:
        for said in make(job_id, request):
            pipe.send(said)

    return send


GARBAGE: dict[str, Callable[..., object]] = {
    "no message": _raw(b"\x00not a message at all"),
    "empty message": _raw(b""),
    "half an end": _raw(written(JobFinished(job_id="x" * 500, epoch=1, images=()))[:-40]),
    "impossible length": lambda pipe, _job_id, _request: os.write(
        pipe.pipe.fileno(), b"\x7f\xff\xff\xff" + bytes(100)
    ),
    "enormous length": lambda pipe, _job_id, _request: os.write(
        pipe.pipe.fileno(), b"\xff\xff\xff\xff" + b"\x7f" * 100
    ),
    "a dictionary": _objects(lambda _job_id, _request: [{"job_id": "x"}]),
    "a command": _objects(lambda job_id, _request: [Cancel(job_id=job_id)]),
    "an exit that is none": _objects(lambda *_: [EngineExited(exit_code=0, restarts=1)]),
    "a bomb": _raw(pickle.dumps(Bomb())),
    "a hollow message": _raw(b"\x92\xabJobFinished\x80"),
    "an unknown job": _objects(lambda _job_id, request: [finished("nobody", request)]),
    "no images": _objects(
        lambda job_id, _request: [JobFinished(job_id=job_id, epoch=EPOCHS[job_id], images=())]
    ),
    "two images": _objects(
        lambda job_id, request: [
            JobFinished(
                job_id=job_id, epoch=EPOCHS[job_id], images=images(request) + images(request)
            )
        ]
    ),
    "a narrow image": _objects(lambda job_id, request: [_broken(job_id, request, width=8)]),
    "a short image": _objects(lambda job_id, request: [_broken(job_id, request, pixels=b"ab")]),
    "no bytes": _objects(lambda job_id, request: [_broken(job_id, request, pixels="ab")]),
    "another seed": _objects(lambda job_id, request: [_broken(job_id, request, seed=5)]),
    "NaN seconds": _objects(lambda job_id, r: [step(job_id, 1, r, seconds=float("nan"))]),
    "NaN times": _objects(
        lambda job_id, request: [
            JobFinished(
                job_id=job_id,
                epoch=EPOCHS[job_id],
                images=images(request),
                times=StageTimes(denoise=float("nan")),
            )
        ]
    ),
    "negative seconds": _objects(lambda job_id, r: [step(job_id, 1, r, seconds=-1.0)]),
    "no pixels": _objects(lambda job_id, request: [step(job_id, 1, request, pixels=0)]),
    "a step of nobody": _objects(lambda job_id, r: [step(job_id, 1, r, shares={"nobody": 1.0})]),
    "a step back": _objects(lambda job_id, r: [step(job_id, 3, r), step(job_id, 2, r)]),
    "too many steps": _objects(lambda job_id, r: [step(job_id, r.steps + 1, r)]),
    "an end twice": _objects(lambda job_id, r: [finished(job_id, r), finished(job_id, r)]),
    "a step after the end": _objects(lambda job_id, r: [finished(job_id, r), step(job_id, 1, r)]),
    "an end that nobody asked for": _objects(
        lambda job_id, _r: [JobCancelled(job_id=job_id, epoch=EPOCHS[job_id])]
    ),
    "an early end that nobody asked for": _objects(
        lambda job_id, request: [replace(finished(job_id, request), interrupted_after=1)]
    ),
    "an error without a code": _objects(
        lambda job_id, _r: [JobFailed(job_id=job_id, epoch=EPOCHS[job_id], code=None, detail="x")]  # type: ignore[arg-type]
    ),
    "ready again": _objects(lambda *_: [EngineReady(model=MODEL)]),
    "failed to load after all": _objects(lambda *_: [EngineFailed(code="model_error", detail="x")]),
    "a stage with a line break": _objects(
        lambda *_: [StageStarted(stage="text\nencode")]  # type: ignore[arg-type]
    ),
}
"""What a broken engine may say instead of the end of a job, by the prompt that asks for it."""

SAID = GARBAGE | {
    "late": _objects(
        lambda job_id, request: [
            replace(finished(job_id, request), epoch=EPOCHS[job_id] - 1),
            finished(job_id, request),
        ]
    )
}


def _obey(pipe: Pipe, job_id: str, request: GenerationSpec, prompt: str) -> None:
    match prompt:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "exits":
            os._exit(3)
        case "raises":
            raise RuntimeError("out of ideas")
        case "hangs":
            pipe.send(StageStarted(stage=Stage.DENOISE, images=1))
            signal.pause()
        case "half a message":
            os.write(pipe.pipe.fileno(), b"\x00\x00\x01\x00" + bytes(10))
            signal.pause()
        case "chatters":
            _chatter()
            _paint(pipe, job_id, request)
        case "fails":
            pipe.send(
                JobFailed(
                    job_id=job_id, epoch=EPOCHS[job_id], code="generation_failed", detail="no idea"
                )
            )
        case _ if prompt in SAID:
            SAID[prompt](pipe, job_id, request)
        case _:
            _paint(pipe, job_id, request)


def _chatter() -> None:
    """Write 4 MiB, as libraries do: as text, and past Python to both descriptors."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        for _ in range(1024):
            print("x" * 1023, file=stream)
            with contextlib.suppress(BlockingIOError):  # A library of C looks at no error.
                os.write(descriptor, b"y" * 1023 + b"\n")


def _paint(pipe: Pipe, job_id: str, request: GenerationSpec) -> None:
    """Finish a job, with a pause at each step where the environment asks for one."""
    for done in range(1, request.total_steps + 1):
        pipe.send(StageStarted(stage=Stage.DENOISE, images=request.num_images))
        time.sleep(float(os.environ.get("CHILD_STEP_SECONDS", "0")))
        pipe.send(step(job_id, done, request))
    pipe.send(StageStarted(stage=Stage.VAE_DECODE, images=1))
    pipe.send(finished(job_id, request))


def _end(pipe: Pipe, command: Cancel | Interrupt, jobs: dict[str, GenerationSpec]) -> None:
    """End a job that stays, as the command says."""
    job_id = command.job_id
    if (request := jobs.pop(job_id, None)) is None:
        return
    if isinstance(command, Cancel):
        pipe.send(JobCancelled(job_id=job_id, epoch=EPOCHS[job_id]))
    else:
        pipe.send(replace(finished(job_id, request), interrupted_after=1))


def _work(pipe: Pipe) -> None:
    jobs: dict[str, GenerationSpec] = {}
    with contextlib.suppress(EOFError, OSError):  # The service is gone.
        while True:
            match pipe.receive():
                case Generate(job_id=job_id, epoch=epoch, request=request, inputs=inputs):
                    EPOCHS[job_id] = epoch
                    if inputs is not None:
                        pipe.send(returned(job_id, request, inputs))
                        continue
                    if request.prompt == "stays":
                        jobs[job_id] = request
                        continue
                    prompt, once, path = request.prompt.partition(" once ")
                    if once and Path(path).exists():
                        prompt = "a cat"
                    elif once:
                        Path(path).touch()
                    _obey(pipe, job_id, request, prompt)
                case Cancel() | Interrupt() as command:
                    _end(pipe, command, jobs)
                case Shutdown():
                    return


def obedient(pipe: Pipe, _config: Config) -> None:
    """Finish every job; a prompt that names a way to die is obeyed; ``stays`` never ends."""
    pipe.send(EngineReady(model=MODEL))
    _work(pipe)


def measured(pipe: Pipe, _config: Config) -> None:
    """Say how long a step of 512x512 takes, and be obedient."""
    pipe.send(EngineReady(model=MODEL))
    pipe.send(StepBaseline(pixels=512 * 512, images=1, seconds=30.0))
    _work(pipe)


def stubborn(pipe: Pipe, _config: Config) -> None:
    """Never read a command: only a kill ends it."""
    pipe.send(EngineReady(model=MODEL))
    signal.pause()


def without_model(pipe: Pipe, _config: Config) -> None:
    """Report that the model cannot be loaded, and end."""
    pipe.send(EngineFailed(code="model_error", detail="no such folder"))


def _life() -> int:
    """Return which life this is, counted in a file."""
    lives = Path(os.environ["CHILD_LIVES"])
    lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
    return len(lives.read_text())


def short_of_memory_once(pipe: Pipe, config: Config) -> None:
    """Fail to load in the second life; else be obedient."""
    if _life() == 2:
        pipe.send(EngineFailed(code="model_error", detail="no memory left"))
        return
    obedient(pipe, config)


def short_of_memory_at_first(pipe: Pipe, config: Config) -> None:
    """Fail to load in the first two lives, as others hold the memory; then be obedient."""
    if _life() <= 2:
        pipe.send(EngineFailed(code="model_error", detail="no memory left", transient=True))
        return
    obedient(pipe, config)


def from_a_file(pipe: Pipe, config: Config) -> None:
    """Load while the file that CHILD_MODEL names is there and whole; else say that it is not.

    ``full`` in it is a device without memory.
    """
    found = Path(os.environ["CHILD_MODEL"]).read_text()
    if found == "full":
        pipe.send(EngineFailed(code="model_error", detail="The device is full.", transient=True))
        return
    if found != "whole":
        pipe.send(EngineFailed(code="model_error", detail="The weights are cut short."))
        return
    obedient(pipe, config)


def crashes_while_loading_once(pipe: Pipe, config: Config) -> None:
    """Die in the first life while the model loads; then be obedient."""
    if _life() == 1:
        pipe.send(StageStarted(stage=Stage.LOAD))
        ctypes.string_at(0)
    obedient(pipe, config)


def hangs_while_loading_once(pipe: Pipe, config: Config) -> None:
    """Hang in the first life while the model loads; then be obedient."""
    if _life() == 1:
        pipe.send(StageStarted(stage=Stage.LOAD))
        signal.pause()
    obedient(pipe, config)


def babbling_once(pipe: Pipe, config: Config) -> None:
    """Send in the first life, instead of a model, what is none."""
    if _life() == 1:
        pipe.pipe.send_bytes(b"hello")
        signal.pause()
    obedient(pipe, config)


def always_dying(_pipe: Pipe, _config: Config) -> None:
    """Die before anything is said."""
    os.kill(os.getpid(), signal.SIGKILL)
