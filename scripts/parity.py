"""Compare the step loop's pictures with diffusers' own, alone and in company; print tables.

python -m scripts.parity            random-weight models of every kind, and the demo
python -m scripts.parity FOLDER     a model of your own (folder, file or hub id)
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
import torch

from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest, JobFailed, JobFinished, Stepped
from service.diffusion.load import Model, load_model
from service.diffusion.samplers import build
from service.diffusion.step_loop import StepLoop
from service.models import catalog

SHARE = 0.999
"""How many of a picture's values may not differ by more than one level of 255."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two sets of pictures differ, over all their 8-bit values."""

    equal: float
    within_one: float
    largest: int

    @property
    def same(self) -> bool:
        """Whether they are the same up to rounding."""
        return self.within_one >= SHARE


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Difference:
    """Compare pictures ``[height, width, 3]`` one by one."""
    gaps = np.abs(np.stack(ours).astype(int) - np.stack(theirs).astype(int))
    return Difference(
        equal=float((gaps == 0).mean()),
        within_one=float((gaps <= 1).mean()),
        largest=int(gaps.max()),
    )


def from_diffusers(model: Model, request: GenerationRequest) -> list[np.ndarray]:
    """Make the pictures by calling the diffusers pipeline, which knows no batches of ours."""
    pipeline = model.pipeline
    kept = pipeline.scheduler
    pipeline.scheduler = build(request.sampler, kept.config)
    try:
        pictures = pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt or None,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            num_images_per_prompt=request.num_images,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in request.seeds],
        ).images
    finally:
        pipeline.scheduler = kept
    return [np.asarray(picture) for picture in pictures]


def finish(loop: StepLoop, job_id: str, *, shared: int = 0) -> list[np.ndarray]:
    """Run the loop until it is empty; return one job's pictures.

    Raises:
        RuntimeError: a job failed, or fewer than ``shared`` of the job's steps had company.

    """
    found: list[np.ndarray] = []
    in_company = 0
    while loop.busy:
        for outcome in loop.step():
            if isinstance(outcome, JobFailed):
                raise RuntimeError(outcome.detail)  # noqa: TRY004 - no wrong type of argument
            if isinstance(outcome, Stepped) and job_id in outcome.progress:
                in_company += len(outcome.progress) > 1
            if isinstance(outcome, JobFinished) and outcome.job_id == job_id:
                found = [
                    np.frombuffer(picture.pixels, np.uint8).reshape(picture.height, -1, 3)
                    for picture in outcome.pictures
                ]
    if in_company < shared:
        raise RuntimeError(f"Only {in_company} steps were shared.")
    return found


def alone(model: Model, request: GenerationRequest) -> list[np.ndarray]:
    """Make the pictures in a step loop that has nothing else to do."""
    loop = StepLoop(model, batch_limit=request.num_images)
    loop.add("request", request)
    return finish(loop, "request")


def in_company(model: Model, request: GenerationRequest) -> list[np.ndarray]:
    """Make the pictures while others come and go, at other sizes, steps, samplers, guidance."""
    loop = StepLoop(model, batch_limit=8)
    others = {
        "early": replace(request, prompt="early", sampler="euler_a", seed=1, num_images=1),
        "unguided": replace(
            request, prompt="other", guidance_scale=1.0, steps=request.steps + 3, sampler="heun"
        ),
        "wide": replace(request, width=request.width * 2, sampler="ddim", steps=3),
        "leaver": replace(request, seed=9, sampler="unipc", guidance_scale=3.0, num_images=1),
    }
    loop.add("early", others["early"])
    loop.step()
    loop.add("leaver", others["leaver"])
    loop.step()
    loop.add("request", request)
    loop.add("wide", others["wide"])
    loop.step()
    loop.add("unguided", others["unguided"])
    loop.step()
    loop.cancel("leaver")
    return finish(loop, "request", shared=1)


def rows(model: Model, request: GenerationRequest) -> list[str]:
    """Return one row of the table per sampler."""
    found = []
    for sampler in SAMPLERS:
        asked = replace(request, sampler=sampler)
        by_itself = alone(model, asked)
        with_diffusers = difference(by_itself, from_diffusers(model, asked))
        with_others = difference(in_company(model, asked), by_itself)
        columns = [
            f"{result.equal:.4%} | {result.within_one:.4%} | {result.largest}"
            for result in (with_diffusers, with_others)
        ]
        same = with_diffusers.same and with_others.same
        found.append(f"| {sampler} | {' | '.join(columns)} | {'yes' if same else '**NO**'} |")
    return found


def models(folder: Path, wanted: str | None) -> list[tuple[str, catalog.Source, int]]:
    """Return title, source and side in pixels of the models to compare with."""
    if wanted:
        return [(wanted, catalog.resolve(wanted, Path("models")), 256)]
    from tests import tiny_models  # noqa: PLC0415 - only the default needs it

    builders: dict[str, Callable[[Path], Path]] = {
        "SD 1.5 shape": tiny_models.build_sd,
        "SD 2 shape, v-prediction": tiny_models.build_v_prediction,
        "SDXL shape": tiny_models.build_sdxl,
        "distilled (LCM) shape": tiny_models.build_lcm,
        "AutoencoderTiny, 12 channels": tiny_models.build_tiny_vae,
    }
    found = [
        (title, catalog.resolve(str(builder(folder / builder.__name__)), folder), 32)
        for title, builder in builders.items()
    ]
    demo = [source for source in catalog.installed(folder) if source.demo]
    return found + [("demo", source, 256) for source in demo]


def main() -> int:
    """Print a table per model; exit with 1 if any picture differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", help="folder, .safetensors file or hub id")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, source, side in models(Path(folder), chosen.model):
            model = load_model(source, cache_dir=Path(folder), threads=chosen.threads)
            request = GenerationRequest(
                prompt="a cat", width=side, height=side, steps=chosen.steps, seed=5, num_images=2
            )
            print(f"\n### {title} ({model.info.device}, {model.info.dtype})\n")
            print(
                "| sampler | alone = diffusers: equal | within 1/255 | largest gap "
                "| in company = alone: equal | within 1/255 | largest gap | same |"
            )
            print("|---|---|---|---|---|---|---|---|")
            table = rows(model, request)
            print("\n".join(table), flush=True)
            lines += table
    return int(any("NO" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
