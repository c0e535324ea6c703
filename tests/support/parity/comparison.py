"""The step loop's images, alone and in company, and how far two sets of images differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from service.config.table import Config
from service.core.events import JobFailed, JobFinished, LoopEvent, Stepped
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop, no_fault
from service.diffusion.pool.background import Background
from service.diffusion.pool.member import Member
from service.diffusion.pool.opener import Opener
from service.diffusion.pool.pool import ModelPool
from service.diffusion.pool.residents import Residents, Said
from service.models.adapters.catalog import AdapterCatalog
from service.system import host_memory
from tests.support.parity.gallery import engine_inputs

SHARE: Final = 0.999
"""How many of an image's values may not differ by more than one level of 255."""

MOST_SECONDS: Final = 60.0
"""For a model to load; here none has to."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two sets of images differ, over all their 8-bit values."""

    equal: float
    within_one: float
    largest: int

    @property
    def same(self) -> bool:
        """Whether they are the same up to rounding."""
        return self.within_one >= SHARE

    def __str__(self) -> str:
        """Return the three numbers as a person reads them."""
        return f"{self.equal:.2%} equal, {self.within_one:.2%} within 1, largest {self.largest}"


@dataclass(kw_only=True)
class Ending:
    """What became of one job of a loop."""

    images: list[np.ndarray]
    failure: JobFailed | None = None
    finished: JobFinished | None = None
    steps: int = 0
    """Denoising steps that it took part in."""
    shared: int = 0
    """Those of them that others took part in, too."""


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Difference:
    """Compare images ``[height, width, 3]`` one by one."""
    gaps = np.abs(np.stack(ours).astype(int) - np.stack(theirs).astype(int))
    return Difference(
        equal=float((gaps == 0).mean()),
        within_one=float((gaps <= 1).mean()),
        largest=int(gaps.max()),
    )


def together(
    model: Model,
    requests: Mapping[str, GenerationSpec],
    *,
    batch_limit: int = 8,
    adapters: AdapterCatalog | None = None,
) -> dict[str, Ending]:
    """Make the images of requests that all arrive at once; say what became of each."""
    store = store_of(model, catalog=adapters)
    loop = StepLoop(model, batch_limit=batch_limit, adapters=store)
    for job_id, request in requests.items():
        loop.add(job_id, request, inputs=engine_inputs(request))
    return endings(loop)


def pooled(
    models: Mapping[str, Model],
    requests: Mapping[str, GenerationSpec],
    *,
    batch_limit: int = 8,
    adapters: Mapping[str, AdapterCatalog],
) -> dict[str, Ending]:
    """Make the images of requests to several models that all arrive at once, in one engine."""
    loops = {
        name: StepLoop(
            model, batch_limit=batch_limit, adapters=store_of(model, catalog=adapters[name])
        )
        for name, model in models.items()
    }
    first, *others = [
        Member(name=name, loop=loop, load_seconds=1.0) for name, loop in loops.items()
    ]
    background = Background(most_seconds=MOST_SECONDS)
    residents = Residents(first, background, host_budget=host_memory.total())
    for each in others:
        residents.admit(each)
    pool = ModelPool(residents, Opener(Config(), no_fault), background)
    for job_id, request in requests.items():
        pool.add(job_id, request, 0, engine_inputs(request))
    return endings(pool)


def alone(
    model: Model, request: GenerationSpec, *, adapters: AdapterCatalog | None = None
) -> list[np.ndarray]:
    """Make the images in a step loop that has nothing else to do."""
    found = together(model, {"request": request}, batch_limit=request.num_images, adapters=adapters)
    return _images(found["request"])


def in_company(model: Model, request: GenerationSpec) -> list[np.ndarray]:
    """Make the images while others come and go, at other sizes, steps, samplers, guidance."""
    loop = StepLoop(model, batch_limit=8)
    mine, request = request, replace(request, schedule="automatic")
    others = {
        "early": replace(request, prompt="early", sampler="euler_a", eta=0, seed=1, num_images=1),
        "unguided": replace(
            request,
            prompt="other",
            guidance_scale=1.0,
            guidance_rescale=0.5,
            steps=request.steps + 3,
            sampler="heun",
            eta=0,
        ),
        "wide": replace(request, width=request.width * 2, sampler="ddim", steps=3),
        "leaver": replace(
            request, seed=9, sampler="unipc", eta=0, guidance_scale=3.0, num_images=1
        ),
    }
    loop.add("early", others["early"], inputs=engine_inputs(request))
    loop.step()
    loop.add("leaver", others["leaver"], inputs=engine_inputs(request))
    loop.step()
    loop.add("request", mine, inputs=engine_inputs(mine))
    loop.add("wide", others["wide"], inputs=engine_inputs(others["wide"]))
    outcomes = loop.step()
    loop.add("unguided", others["unguided"], inputs=engine_inputs(request))
    outcomes += loop.step()
    loop.cancel("leaver")
    found = endings(loop, outcomes)["request"]
    assert found.shared, "no step was shared"
    return _images(found)


def endings(loop: StepLoop | ModelPool, outcomes: Sequence[LoopEvent] = ()) -> dict[str, Ending]:
    """Run a loop until it is empty; return every job's ending, ``outcomes`` counted in."""
    found: dict[str, Ending] = {}
    _note(found, outcomes)
    while loop.busy:
        _note(found, loop.step())
    return found


def _note(found: dict[str, Ending], outcomes: Sequence[LoopEvent | Said]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Stepped):
            for job_id in outcome.progress:
                ending = found.setdefault(job_id, Ending(images=[]))
                ending.steps += 1
                ending.shared += len(outcome.progress) > 1
        elif isinstance(outcome, JobFailed):
            found.setdefault(outcome.job_id, Ending(images=[])).failure = outcome
        elif isinstance(outcome, JobFinished):
            ending = found.setdefault(outcome.job_id, Ending(images=[]))
            ending.images = [_array(each) for each in outcome.images]
            ending.finished = outcome


def _array(image: RawImage) -> np.ndarray:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, -1, 3)


def _images(ending: Ending) -> list[np.ndarray]:
    assert ending.failure is None, ending.failure
    return ending.images
