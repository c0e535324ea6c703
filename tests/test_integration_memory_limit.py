"""Memory that really runs out: the bundled model under a limit of the address space."""

import multiprocessing
import resource
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from service.config.table import Config
from service.core.events import JobFailed, JobFinished, OutOfMemoryHit
from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec
from service.engine.process import worker

pytestmark = pytest.mark.long

MIB = 2**20
ROOMS = {"none-to-denoise": 60 * MIB, "none-to-decode": 150 * MIB}
"""Enough for 256x256; for 1024x1024 not even enough for a step, or not to decode it whole."""


def mapped() -> int:
    """Return the address space of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def asked(size: int, mode: str) -> tuple[GenerationSpec, EngineInputs | None]:
    """Return a request, and the pixels of its image."""
    request = GenerationSpec(prompt="a boat", width=size, height=size, steps=2)
    if mode == "text":
        return request, None
    image = InputImage(digest="0" * 64, width=size, height=size)
    return replace(request, image=image, strength=1.0), EngineInputs(image=bytes(3 * size * size))


def limited(answers: "Connection[dict[str, Any], None]", room: int, mode: str) -> None:
    """Make images with too little memory, then with enough; runs in a process of its own."""
    config = Config(torch_threads=1, max_size=1024)
    loop, _ = worker.load(config)
    worker.warmed_up(loop, config)

    def made(size: int, count: int = 1) -> list[Any]:
        for number in range(count):
            request, inputs = asked(size, mode)
            loop.add(f"{size}-{number}", request, inputs=inputs)
        outcomes = []
        while loop.busy:
            outcomes += loop.step()
        return outcomes

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped() + room, hard))
    short = {"large": made(1024, 2), "small": made(256, 3)}
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    answers.send({**short, "after": made(1024)})


def ends(outcomes: list[Any]) -> set[str]:
    """Return how jobs ended."""
    kinds = {"succeeded" for outcome in outcomes if isinstance(outcome, JobFinished)}
    return kinds | {outcome.code for outcome in outcomes if isinstance(outcome, JobFailed)}


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
@pytest.mark.parametrize(("mode", "first"), [("text", "denoise"), ("image", "vae_encode")])
def test_memory_that_really_runs_out(room: int, mode: str, first: str) -> None:
    """What does not fit fails with its reason or is made in tiles; all else is made.

    The engine goes on, and makes the same large image when there is memory again.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=limited, args=(theirs, room, mode))
    child.start()
    theirs.close()
    found = ours.recv()
    child.join()

    hits = [outcome for outcome in found["large"] if isinstance(outcome, OutOfMemoryHit)]
    assert {hit.stage for hit in hits} <= {first, "denoise", "vae_decode"}
    assert hits[0].rung == "free_cache"
    assert ends(found["large"]) <= {"succeeded", "out_of_memory"}
    assert ends(found["small"]) == {"succeeded"}
    assert ends(found["after"]) == {"succeeded"}
    assert child.exitcode == 0
