"""Measure what a batch whose rows have different LoRA gains, compared with three alternatives.

Each of some clients wants an image with a LoRA of its own, all at the same time. They are drawn

    rows       in one batch, each row with its own LoRA, as the service does it
    groups     by the same step loop, one group of equal LoRA after the other
    switched   by diffusers alone, with set_adapters between the groups
    PEFT       by diffusers in one batch, with adapter_names for each row in PEFT's layers

in one process and in turns, another one first in each round. That all give the same images is
checked before anything is timed. A ratio is images a second of the rows, divided by the other's
in the same round; its interval holds the median of all rounds with the probability that is named.

    python scripts/benchmark_adapters.py                two minutes on two idle cores
    python scripts/benchmark_adapters.py --write        puts the figures into docs/MODELS.md
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from diffusers.utils.logging import set_verbosity_error
from tqdm import tqdm

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # Started as a file, Python looks into its own folder only.

from scripts.benchmark.machine import cores, processor  # noqa: E402
from scripts.benchmark.ratios import interval  # noqa: E402
from scripts.benchmark.rows import BenchmarkError, Row, row  # noqa: E402
from scripts.cards import plain  # noqa: E402
from scripts.chart import EXTRA  # noqa: E402
from scripts.written import demand_writable, filled, table  # noqa: E402
from service.config.loading import load  # noqa: E402
from service.core.events import JobFailed, JobFinished  # noqa: E402
from service.core.spec import Adapter, GenerationSpec  # noqa: E402
from service.diffusion.adapters.store import store_of  # noqa: E402
from service.diffusion.load import load_model  # noqa: E402
from service.diffusion.loop.step_loop import StepLoop  # noqa: E402
from service.errors import ServiceError  # noqa: E402
from service.models import catalog  # noqa: E402
from service.models.adapters.catalog import AdapterCatalog  # noqa: E402
from tests.support.models import adapter_files  # noqa: E402

NAME: Final = "benchmark_adapters"
DOCUMENT: Final = ROOT / "docs" / "MODELS.md"
RANK: Final = 4
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out")
SAME: Final = 0.999
"""Share of the values of an image that may differ by one level of 255 at most."""

Images = list[np.ndarray]
Way = Callable[[Sequence[GenerationSpec]], Images]


class Ways:
    """The ways to draw requests that differ in their LoRA, all with one model."""

    def __init__(self, folder: Path, model_id: str, names: Sequence[str]) -> None:
        config = load({**os.environ, "MODEL_ID": model_id})
        torch.set_num_threads(config.torch_threads or cores())
        source = catalog.resolve(config.model_id, config.model_cache_dir)
        self.pipeline = plain.load(source, config)
        set_verbosity_error()  # It wonders about LoRA that leave the text encoder alone.
        self.pipeline.vae.to(memory_format=torch.channels_last)  # As the service has it.
        for seed, name in enumerate(names):
            path = folder / f"{name}.safetensors"
            targets = {"unet": ATTENTION}
            adapter_files.lora(path, self.pipeline, targets, seed=seed, rank=RANK)
        for name in names:
            self.pipeline.load_lora_weights(
                str(folder), weight_name=f"{name}.safetensors", adapter_name=name
            )
        model = load_model(source, config)
        store = store_of(model, catalog=AdapterCatalog(folder))
        self._loop = StepLoop(model, batch_limit=len(names), adapters=store)

    def rows(self, requests: Sequence[GenerationSpec]) -> Images:
        """Draw all in one batch, each row with its own LoRA."""
        found: dict[str, np.ndarray] = {}
        for number, request in enumerate(requests):
            self._loop.add(str(number), request)
        while self._loop.busy:
            for event in self._loop.step():
                if isinstance(event, JobFailed):
                    raise BenchmarkError(event.detail)
                if isinstance(event, JobFinished):
                    (image,) = event.images
                    pixels = np.frombuffer(image.pixels, np.uint8)
                    found[event.job_id] = pixels.reshape(image.height, image.width, 3)
        return [found[str(number)] for number in range(len(requests))]

    def groups(self, requests: Sequence[GenerationSpec]) -> Images:
        """Draw one LoRA after the other with the step loop, with all that it can batch."""
        return [image for request in requests for image in self.rows([request])]

    def switched(self, requests: Sequence[GenerationSpec]) -> Images:
        """Draw one LoRA after the other with diffusers."""
        found = []
        for request in requests:
            self.pipeline.set_adapters([each.name for each in request.adapters])
            found += self._called([request])
        return found

    def peft(self, requests: Sequence[GenerationSpec]) -> Images:
        """Draw all in one batch of diffusers, where each LoRA layer is told the name of each row.

        diffusers does not hand the names on, so each layer gets them before its call.
        """
        # A row without and one with the prompt for each image, in the order of the pipeline.
        names = [request.adapters[0].name for request in requests] * 2

        def named(_layer: Any, given: tuple[Any, ...], words: dict[str, Any]) -> Any:
            return given, {**words, "adapter_names": names}

        with ExitStack() as hooks:
            for layer in self.pipeline.unet.modules():
                if hasattr(layer, "lora_A"):
                    hook = layer.register_forward_pre_hook(named, with_kwargs=True)
                    hooks.callback(hook.remove)
            return self._called(requests)

    def _called(self, requests: Sequence[GenerationSpec]) -> Images:
        first = requests[0]
        images = self.pipeline(
            [each.prompt for each in requests],
            width=first.width,
            height=first.height,
            num_inference_steps=first.steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(each.seed) for each in requests],
        ).images
        return [np.asarray(image) for image in images]


def asked(size: Row, names: Sequence[str], turn: int) -> list[GenerationSpec]:
    """Return the requests of a round: one of each client, with texts that nobody has read yet."""
    wanted = GenerationSpec(**size.body(0))
    return [
        replace(
            wanted,
            prompt=f"a cabin in the woods, no. {turn}, {number}",
            seed=turn * len(names) + number,
            adapters=(Adapter(name=name, text_weight=1.0),),
        )
        for number, name in enumerate(names)
    ]


def demand_same(found: Mapping[str, Images]) -> None:
    """Raise BenchmarkError where two ways do not give the same images."""
    ours, *others = found.items()
    for name, theirs in others:
        apart = np.abs(np.stack(ours[1]).astype(int) - np.stack(theirs).astype(int))
        if (apart <= 1).mean() < SAME:
            raise BenchmarkError(f"{ours[0]} and {name} do not draw the same images")


def measured(
    ways: Mapping[str, Way], requests: Iterator[Sequence[GenerationSpec]]
) -> dict[str, list[float]]:
    """Return the images a second of each way in each round; the first requests warm them up."""
    first = next(requests)
    demand_same({name: way(first) for name, way in ways.items()})
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn, some in enumerate(requests):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            started = time.perf_counter()
            ways[name](some)
            speeds[name].append(len(some) / (time.perf_counter() - started))
    return speeds


def report(speeds: Mapping[str, Sequence[float]]) -> str:
    """Return the table of the ways: their speeds, and the ratio to the first of them."""
    (name, ours), *others = speeds.items()
    lines = [[name, f"{statistics.median(ours):.2f}", "", ""]]
    for other, theirs in others:
        ratios = [mine / its for mine, its in zip(ours, theirs, strict=True)]
        low, high, sure = interval(ratios)
        median = statistics.median(ratios)
        bounds = f"{low:.2f} to {high:.2f} ({sure:.1%})"
        lines.append([other, f"{statistics.median(theirs):.2f}", f"{median:.2f}", bounds])
    return table(("way", "images/s", "rows ÷ it", "interval of the median"), lines)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--model", default=catalog.DEMO_ID, help="MODEL_ID (%(default)s)")
    root.add_argument("--row", type=row, default=row("256x256/20"), help="size and steps")
    root.add_argument("--clients", type=int, default=4, help="each with its LoRA (%(default)s)")
    root.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    root.add_argument("--write", action="store_true", help="figures into docs/MODELS.md")
    return root


def measure(given: argparse.Namespace) -> str:
    """Run all rounds; return what was run and the table of what it showed."""
    if find_spec("peft") is None:
        raise BenchmarkError(f"peft is not installed; {EXTRA} brings it")
    demand_writable("--write", DOCUMENT if given.write else None)
    names = [f"lora-{number}" for number in range(given.clients)]
    turns = tqdm(range(given.rounds + 1), file=sys.stderr, disable=None)
    with TemporaryDirectory() as folder:
        ways = Ways(Path(folder), given.model, names)
        speeds = measured(
            {
                "rows": ways.rows,
                "groups": ways.groups,
                "switched": ways.switched,
                "PEFT": ways.peft,
            },
            (asked(given.row, names, turn) for turn in turns),
        )
    return (
        f"{given.clients} clients, {given.row.title}, model {given.model}, "
        f"{torch.get_num_threads()} torch threads on {processor()}, {given.rounds} rounds:\n\n"
        f"{report(speeds)}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    given = parser().parse_args(arguments)
    try:
        text = measure(given)
    except (BenchmarkError, ServiceError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    print(text)
    if given.write:
        old = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(filled(old, lambda *_: [text]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
