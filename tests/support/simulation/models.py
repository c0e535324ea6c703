"""Tell what it costs to draw with models that do not fit into memory together.

    python -m tests.support.simulation.models

An hour of clients against the service's own dispatcher, by how long a model keeps its memory.
"""

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean, quantiles
from typing import Any
from unittest import mock

import structlog

from service.core.spec import GenerationSpec
from service.core.work import work
from service.jobs.dispatch import residency
from tests.support.simulation.engine import PIXEL_STEP
from tests.support.simulation.fake_engine import FAKE_MODEL
from tests.support.simulation.fake_models import FakeModel
from tests.support.simulation.simulate import BATCH, Simulation, request, simulated

LOAD_SECONDS = 10.0
SHOWN = ((0.0, 0.0), (1.0, 0.25), (2.0, 0.25), (4.0, 0.0), (4.0, 0.25), (8.0, 0.25))
"""Values of PATIENCE and LINGER."""

Requests = Callable[[int], Iterator[GenerationSpec]]
"""The requests of a client, by its number."""


def drawn_with(*models: str, steps: int = 20) -> Iterator[GenerationSpec]:
    """Yield requests to these models in turns."""
    for model in itertools.cycle(models):
        yield replace(request(steps), model=model)


PLANS: dict[str, tuple[int, tuple[str, ...], Requests]] = {
    "4 clients, each alternates between two models": (4, ("b",), lambda _: drawn_with("", "b")),
    "2 clients for each of two models": (4, ("b",), lambda n: drawn_with(("", "b")[n % 2])),
    "1 client for each of three models": (3, ("b", "c"), lambda n: drawn_with(("", "b", "c")[n])),
    "8 clients for one model, 1 for another": (
        9,
        ("b",),
        lambda n: drawn_with("b" if not n else ""),
    ),
}
"""By title: clients, models next to the default one, requests."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came out of an hour."""

    images: int
    switches: int
    waits: list[float]
    """Seconds from acceptance to the first step."""
    model_wait: float
    """The longest time from a job's fair turn until its model was loaded."""


class Longest:
    """Takes the place of a histogram and keeps the largest value."""

    longest = 0.0

    def labels(self, _model: str) -> "Longest":
        return self

    def observe(self, value: float) -> None:
        self.longest = max(self.longest, value)


def loads(run: Simulation) -> int:
    """Return how many models were loaded on demand."""
    return int(
        sum(
            sample.value
            for family in run.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "sd_model_loads_total"
        )
    )


def tried(
    plan: tuple[int, tuple[str, ...], Requests],
    *,
    patience: float = residency.PATIENCE,
    linger: float = residency.LINGER,
    room: int = 1,
    seconds: float = 3600.0,
) -> Found:
    """Let clients draw for so long."""
    clients, names, requests = plan
    models = {
        name: FakeModel(info=replace(FAKE_MODEL, model_id=name), load_seconds=LOAD_SECONDS)
        for name in ("", *names)
    }
    values: dict[str, Any] = {"PATIENCE": patience, "LINGER": linger}
    owners = [f"client-{number}" for number in range(clients)]
    with (
        mock.patch.multiple(residency, **values),
        simulated(owners, models=models, room=room) as run,
    ):
        waits = run.metrics.model_wait = Longest()  # type: ignore[assignment]
        run.run((run.draws(owner, requests(n)) for n, owner in enumerate(owners)), seconds)
        done = [job for job in run.jobs if job.started is not None]
        return Found(
            images=len(done),
            switches=loads(run),
            waits=[(job.started or 0.0) - job.created for job in done],
            model_wait=waits.longest,
        )


def bound(models: int, *, steps: int = 20, patience: float = residency.PATIENCE) -> float:
    """Return the longest time from a job's fair turn until its model is loaded.

    For models that take equally long to load, of which one fits at a time: each of the others has
    its time, the jobs that run end, and the next one loads.
    """
    running = BATCH * work(request(steps)) * PIXEL_STEP
    return (models - 1) * ((patience + 1) * LOAD_SECONDS + running) + LOAD_SECONDS


def main() -> None:
    """Print a table for each plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR + 10))
    for title, plan in PLANS.items():
        print(f"\n### {title}\n")
        print("| PATIENCE | LINGER | images | loads | mean wait, s | p95 | worst |", end="")
        print(" after its turn | bound |")
        print("|---|---|---|---|---|---|---|---|---|")
        for patience, linger in SHOWN:
            found = tried(plan, patience=patience, linger=linger, seconds=options.seconds)
            p95 = quantiles(found.waits, n=20, method="inclusive")[-1]
            most = bound(1 + len(plan[1]), patience=patience)
            print(
                f"| {patience:g} | {linger:g} | {found.images} | {found.switches} | "
                f"{fmean(found.waits):.1f} | {p95:.1f} | {max(found.waits):.1f} | "
                f"{found.model_wait:.1f} | {most:.1f} |"
            )
        fits = tried(plan, room=1 + len(plan[1]), seconds=options.seconds)
        print(f"| all fit | | {fits.images} | {fits.switches} | {fmean(fits.waits):.1f} | | | | |")


if __name__ == "__main__":
    main()
