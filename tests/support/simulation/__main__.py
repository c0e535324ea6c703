"""Tell how long jobs wait, how fair their keys are served, and whether promises come true.

    python -m tests.support.simulation

An hour of clients against the service's own dispatcher over a model of the engine, on a virtual
clock.
"""

import argparse
import logging
import random
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean, quantiles

import structlog

from service.jobs.job import Job
from tests.support.simulation.simulate import (
    Promise,
    arrivals,
    fairness,
    mixed,
    request,
    simulated,
    wait,
)

PLANS = {
    "One key, 90 % load, mixed requests": [("only", 0.9, mixed)],
    "One key sends twice what the GPU can do, three send a tenth each": [
        ("flood", 2.0, mixed),
        *((f"light-{n}", 0.1, mixed) for n in (1, 2, 3)),
    ],
    "Two keys send twice what the GPU can do: 50 steps and 4 steps": [
        ("50-step", 2.0, lambda _: request(50)),
        ("4-step", 2.0, lambda _: request(4)),
    ],
    "One key, 4 steps at 90 % load, a job of 50 steps every 100 s": [
        ("only", 0.89, lambda chance: request(50 if chance.random() < 1 / 200 else 4)),
    ],
}
"""By title: name, load and requests of each key."""

CLIENTS = {
    "one key, 100 clients": ["only"] * 100,
    "one key, 670 clients": ["only"] * 670,
    "two keys, 100 and 4 clients": ["flood"] * 100 + ["light"] * 4,
}
FACTOR = 2
"""What counts as right."""

LEAST = 1.0
"""Seconds below which no difference counts."""


def waits(jobs: list[Job], refused: list[Job]) -> Iterator[str]:
    """Yield a table row for each key and number of steps."""
    groups: dict[tuple[str, int], tuple[list[Job], list[Job]]] = defaultdict(lambda: ([], []))
    for kind, several in enumerate((jobs, refused)):
        for job in several:
            owner = "light" if "light" in job.owner else job.owner
            groups[owner, job.request.steps][kind].append(job)
    for (owner, steps), (done, not_done) in sorted(groups.items()):
        seconds = [wait(job) for job in done] or [float("nan")]
        p95 = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
        yield (
            f"| {owner} | {steps} | {len(done)} | {len(not_done)} | {fmean(seconds):.1f} | "
            f"{p95:.1f} | {max(seconds):.1f} |"
        )


def kept(name: str, promises: list[Promise]) -> str:
    """Return a table row about told and true seconds."""
    ratios = [max(each.true, LEAST) / max(each.told, LEAST) for each in promises]
    if len(ratios) < 2:
        return f"| {name} | {len(ratios)} | | | | |"
    right = fmean(1 / FACTOR <= ratio <= FACTOR for ratio in ratios)
    cuts = quantiles(ratios, n=20, method="inclusive")
    points = " | ".join(f"{cuts[at]:.2f}" for at in (0, 9, 18))
    return f"| {name} | {len(ratios)} | {right:.0%} | {points} |"


def main() -> None:
    """Print a table for each plan, and one about promises."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of arrivals")
    parser.add_argument("--engines", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for title, plan in PLANS.items():
        chance = random.Random(f"{options.seed} {title}")
        load = options.engines
        sent = [
            arrivals(chance, key, part * load, options.seconds, make) for key, part, make in plan
        ]
        with simulated([key for key, *_ in plan], engines=options.engines) as run:
            run.run((run.sends(each) for each in sent), options.seconds)
        jain = fairness(run.used, [job for each in sent for _, job in each])
        print(f"\n### {title}\n\nJain's index of GPU time against fair shares: {jain:.3f}\n")
        print("| key | steps | done | refused | mean wait, s | p95 | worst |")
        print("|---|---|---|---|---|---|---|")
        print(*waits(run.jobs, run.refused), sep="\n")
    print("\n### What clients are told\n")
    print("| clients | what | number | within a factor of 2 | true/told, p5 | median | p95 |")
    print("|---|---|---|---|---|---|---|")
    for title, clients in CLIENTS.items():
        owners = sorted(set(clients))
        with simulated(owners, engines=options.engines) as run:
            chances = [random.Random(f"{options.seed} {n}") for n in range(len(clients))]
            coming = zip(clients, chances, strict=True)
            run.run((run.comes_back(*each) for each in coming), options.seconds)
        for owner in owners:
            name = title if len(owners) == 1 else f"{title}: {owner}"
            for what, promises in (("Retry-After", run.places), ("start", run.starts)):
                print(kept(f"{name} | {what}", [one for one in promises if one.owner == owner]))


if __name__ == "__main__":
    main()
