"""Prove that nothing accepted is lost in a cluster, whatever process of it is killed or stopped.

Starts a Ray cluster of a head and some nodes on the loopback address, and for each scene a service.
The engines make no real images, but for those of torch, which run the demo model. While clients
order images, one process after the other is killed or stopped: the engine's, its actor's, the
driver's, the service's, the head's, a node's. In the end each accepted order must have its image,
once, or a reason.

    python -m tests.drills.cluster                  two nodes of two engines, 200 orders a scene
    python -m tests.drills.cluster --scenes driver --strikes 1 --jobs 20
    python -m tests.drills.cluster --write          the outcome into docs/cluster.md, too

Exit code 1: a check failed. The figures need a machine with nothing else to do.
"""

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import Final

from tests.drills.cluster.course import played
from tests.drills.cluster.outcome import CHECKS, GOALS, described
from tests.drills.cluster.scenes import SCENES
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.engines.course import SIDE, STEPS
from tests.drills.engines.outcome import Seen
from tests.support.fake_worker import JOB_SECONDS
from tests.support.ray.cluster import Cluster


async def run(given: Given, folder: Path) -> Seen:
    """Start the cluster and play one scene after the other."""
    seen, each = Seen(), [given.engines] * given.nodes
    wanted = [scene for scene in SCENES if re.search(given.scenes, scene.name)]
    cluster = await asyncio.to_thread(Cluster, tuple(each), {JOB_SECONDS: str(given.job_seconds)})
    try:
        for number, scene in enumerate(wanted):
            seen.courses.append(await played(scene, given, folder / f"scene-{number}", cluster))
    finally:
        await asyncio.shield(asyncio.to_thread(cluster.end))
    return seen


def heading(given: Given, _seen: Seen) -> str:
    """Return the begin of the figures of docs/cluster.md."""
    return f""":
{given.nodes} nodes of {given.engines} engines each and a head, on one machine; orders of
{SIDE}x{SIDE} with {STEPS} steps, {given.job_seconds:g} s of an engine each; those of torch
with the demo model."""


def options(root: argparse.ArgumentParser) -> None:
    root.add_argument("--scenes", default="", help="only those whose names match this")


DRILL: Final = Drill(
    command="tests.drills.cluster",
    about=__doc__,
    page="cluster",
    numbers=(
        Number(name="seed", default=1, about="of the orders and of what is struck"),
        Number(name="nodes", default=2, least=1, most=8, about="nodes of the cluster"),
        Number(name="engines", default=2, least=1, most=8, about="engines of each node"),
        Number(name="job-seconds", default=0.2, least=0.01, about="of an engine for an image"),
        Number(name="jobs", default=200, least=1, about="orders in each scene, at least"),
        Number(name="strikes", default=3, least=1, about="processes that are struck in a scene"),
    ),
    run=run,
    checks=CHECKS,
    goals=GOALS,
    heading=heading,
    described=described,
    options=options,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
