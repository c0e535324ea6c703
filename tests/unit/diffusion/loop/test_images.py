from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from service.core.events import JobCancelled, JobFailed, JobFinished, OutOfMemoryHit
from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

TEXT = GenerationSpec(prompt="a cat", width=64, height=32, steps=4, seed=5)
REQUEST = replace(TEXT, image=InputImage(digest="0" * 64, width=64, height=32), strength=0.5)
PIXELS = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
INPUTS = EngineInputs(image=PIXELS.tobytes())


def drawn(loop: StepLoop, request: GenerationSpec = REQUEST) -> Any:
    """Return the report of a job that has an image."""
    loop.add("a", request, inputs=INPUTS)
    (finished,) = of(JobFinished, drained(loop))
    return finished


def test_an_image_is_encoded_once_for_all_that_a_job_draws(sd: Model) -> None:
    """Its time has a figure of its own, and progress counts the steps that are done."""
    stages: list[str] = []
    loop = StepLoop(sd, batch_limit=2, fault=lambda stage, _images: stages.append(stage))

    finished = drawn(loop, replace(REQUEST, num_images=2))

    assert stages.count(Stage.VAE_ENCODE) == 1
    assert stages.index(Stage.VAE_ENCODE) < stages.index(Stage.DENOISE)
    assert stages.count(Stage.DENOISE) == 2
    assert finished.times.vae_encode > 0
    assert finished.images[0].pixels != finished.images[1].pixels


def test_each_image_of_a_job_is_that_of_its_seed_alone(sd: Model) -> None:
    """What the VAE found is shared, and drawn from by each seed."""
    both = drawn(StepLoop(sd, batch_limit=2), replace(REQUEST, num_images=2)).images

    for index, image in enumerate(both):
        alone = drawn(StepLoop(sd, batch_limit=1), replace(REQUEST, seed=5 + index)).images[0]
        gaps = np.frombuffer(image.pixels, np.uint8).astype(int) - np.frombuffer(
            alone.pixels, np.uint8
        )
        assert np.abs(gaps).max() <= 1


def test_nothing_is_encoded_for_a_text(sd: Model) -> None:
    """The stage is in no figure of a job without an image."""
    loop = StepLoop(sd, batch_limit=1)

    assert drawn(loop, TEXT).times.vae_encode == 0
    assert Stage.VAE_ENCODE not in loop.memory_model.seen


def test_its_memory_is_learned(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By pixels, as that of the other stages."""
    loop = StepLoop(sd, batch_limit=1)
    monkeypatch.setattr(loop.meter, "taken", lambda: 1000)

    drawn(loop)

    assert loop.memory_model.bytes(Stage.VAE_ENCODE, 64 * 32) == 1000


def test_one_image_is_encoded_between_two_steps(sd: Model) -> None:
    """Those that are on their way do not wait for many that come at once."""
    stages: list[str] = []
    loop = StepLoop(sd, batch_limit=4, fault=lambda stage, _images: stages.append(stage))
    loop.add("early", TEXT)
    loop.step()
    stages.clear()
    for job_id in ("b", "c"):
        loop.add(job_id, REQUEST, inputs=INPUTS)

    loop.step()
    loop.step()

    assert [each for each in stages if each != Stage.TEXT_ENCODE] == [
        *(Stage.VAE_ENCODE, Stage.DENOISE),
        *(Stage.VAE_ENCODE, Stage.DENOISE),
    ]


def test_pixels_that_are_missing_end_their_job_alone(sd: Model) -> None:
    """Before any step, and the message says what is wrong."""
    loop = StepLoop(sd, batch_limit=2)
    loop.add("a", REQUEST)
    loop.add("b", TEXT)

    outcomes = drained(loop)

    (failed,), (finished,) = of(JobFailed, outcomes), of(JobFinished, outcomes)
    assert (failed.job_id, failed.code, finished.job_id) == ("a", "generation_failed", "b")
    assert "0 bytes as an input image of 64x32" in failed.detail


def test_latents_that_are_no_numbers_end_their_job(
    sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message tells the input image from the result."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST, inputs=INPUTS)
    vae = sd.family.pipeline.vae
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda image: encode(image * torch.nan))

    (failed,) = of(JobFailed, drained(loop))

    assert "latents of the input image hold NaN" in failed.detail


def test_memory_that_runs_out_in_encoding_ends_one_job_at_most(sd: Model) -> None:
    """After a free cache and tiles; who draws next to it goes on, and who comes after it, too."""
    loop = StepLoop(sd, batch_limit=4, fault=raising((Stage.VAE_ENCODE, 1, 9), error=no_memory))
    loop.add("text", TEXT)
    loop.step()
    loop.add("image", REQUEST, inputs=INPUTS)

    outcomes = drained(loop)
    loop.fault = raising(error=no_memory)
    after = drawn(loop)

    (failed,), (finished,) = of(JobFailed, outcomes), of(JobFinished, outcomes)
    assert (failed.job_id, failed.code) == ("image", "out_of_memory")
    assert (finished.job_id, after.job_id) == ("text", "a")
    rungs = [hit.rung for hit in of(OutOfMemoryHit, outcomes)]
    assert rungs[0] == OomRung.FREE_CACHE
    assert OomRung.VAE_TILING in rungs
    assert rungs[-1] == OomRung.FAIL


def test_an_image_in_tiles_is_nearly_the_whole_one(sd: Model) -> None:
    """Encoding in tiles leaves decoding whole, and comes back to whole images later."""
    whole = drawn(StepLoop(sd, batch_limit=1))
    loop = StepLoop(sd, batch_limit=1, fault=raising((Stage.VAE_ENCODE, 1, 2), error=no_memory))

    tiled = drawn(loop)

    assert loop._recovery.tiles[Stage.VAE_ENCODE].used(torch.Size((1, 4, 16, 32)))
    assert not loop._recovery.tiles[Stage.VAE_DECODE].used(torch.Size((1, 4, 16, 32)))
    gaps = np.frombuffer(whole.images[0].pixels, np.uint8).astype(int) - np.frombuffer(
        tiled.images[0].pixels, np.uint8
    )
    assert np.abs(gaps).mean() < 16


def test_an_image_may_be_cancelled_and_interrupted(sd: Model) -> None:
    """Progress counts to the steps of the strength, and an interrupted one tells how far it is."""
    loop = StepLoop(sd, batch_limit=2)
    for job_id in ("a", "b"):
        loop.add(job_id, replace(REQUEST, steps=12), inputs=INPUTS)
    loop.step()
    loop.step()
    loop.interrupt("a")
    loop.cancel("b")

    outcomes = drained(loop)

    (cancelled,), (finished,) = of(JobCancelled, outcomes), of(JobFinished, outcomes)
    assert cancelled.steps_done == 1
    assert finished.interrupted_after == 2
