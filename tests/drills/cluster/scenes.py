"""What happens to a process of a cluster or of its service, and when the service noticed."""

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.drills.engines.outcome import Row, Strike, moment
from tests.support.ray.cluster import Cluster, child_of
from tests.support.service_process import ServiceProcess
from tests.support.wait import until

BOUND_SECONDS: Final = 180.0
THAW_SECONDS: Final = 5.0
"""After a stopped process was taken for dead, until it goes on."""

PAUSE_SECONDS: Final = 15.0
"""Of a stopped service or node: longer than the lease of an engine, and than the head waits."""

LEFT: Final = frozenset({"engine_leaving", "engine_left", "engine_exited"})
"""What the service says of an engine whose node is gone."""

HEAD_SECONDS: Final = 5.0
"""Without the head's state."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a scene is played."""

    cluster: Cluster
    service: ServiceProcess
    store: Path
    """The service's jobs, in SQLite."""
    chance: random.Random
    engines: int
    """Of each node."""

    def actor(self) -> psutil.Process:
        """Return the process of an actor of this scene's service."""
        return self.chance.choice([each for each in self.cluster.actors() if each.children()])

    def raylet(self) -> psutil.Process:
        """Return the raylet of a node that is there still."""
        pids = [each["raylet"] for each in self.cluster.nodes[1:]]
        found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        return self.chance.choice([each for each in found if each.status() != psutil.STATUS_ZOMBIE])

    def driver(self) -> psutil.Process:
        """Return the process of the service's driver."""
        return psutil.Process(int(self.service.lines("driver_started")[-1]["pid"]))


def rows_of(store: Path) -> Mapping[str, Row]:
    """Return what the store itself says of the jobs that are over, by id."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as read:
        found = read.execute(
            "SELECT id, state, epoch, attempts, started_at, finished_at, error_code, metadata"
            " FROM jobs WHERE finished_at IS NOT NULL"
        )
        return {row[0]: row[1:] for row in found}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Something that is done to one process after the other."""

    name: str
    strike: Callable[[Place], Awaitable[Strike]]
    again: bool = True
    """Whether jobs have to begin again by it."""
    torch: bool = False
    """Whether the engines draw with the demo model."""


async def child_killed(place: Place) -> Strike:
    return await _signalled(place, child_of(place.actor()), signal.SIGKILL, {"engine_exited"})


async def child_stopped(place: Place) -> Strike:
    return await _signalled(place, child_of(place.actor()), signal.SIGSTOP, {"engine_exited"})


async def actor_killed(place: Place) -> Strike:
    return await _signalled(place, place.actor(), signal.SIGKILL, {"engine_exited"})


async def actor_stopped(place: Place) -> Strike:
    """Stop an actor until its jobs run elsewhere, and then let it go on."""
    actor = place.actor()
    strike = await _signalled(place, actor, signal.SIGSTOP, {"engine_exited"})
    await asyncio.sleep(THAW_SECONDS)
    _thaw(place, actor, strike)
    strike.ready = time.time()
    return strike


async def driver_killed(place: Place) -> Strike:
    return await _signalled(place, place.driver(), signal.SIGKILL, {"driver_ended"})


async def driver_stopped(place: Place) -> Strike:
    return await _signalled(place, place.driver(), signal.SIGSTOP, {"driver_ended"})


async def service_killed(place: Place) -> Strike:
    """Kill the service and start it again."""
    strike = Strike(slot="", at=time.time())
    await asyncio.to_thread(place.service.kill)
    strike.ready = strike.detected = time.time()
    await place.service.start()
    return strike


async def service_stopped(place: Place) -> Strike:
    """Stop the service for so long that its engines end what they have."""
    strike = Strike(slot="", at=time.time())
    process = psutil.Process(place.service.process.pid)
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(PAUSE_SECONDS)
    _thaw(place, process, strike)
    strike.ready = time.time()
    return strike


async def head_killed(place: Place) -> Strike:
    """Kill what keeps the state of the cluster, and start it again."""
    strike = Strike(slot="", at=time.time())
    os.kill(place.cluster.nodes[0]["gcs_server"], signal.SIGKILL)
    await asyncio.sleep(HEAD_SECONDS)
    await asyncio.to_thread(place.cluster.restart_gcs)
    strike.ready = strike.at  # Nothing may stand still meanwhile.
    return strike


async def head_stopped(place: Place) -> Strike:
    """Stop what keeps the state of the cluster for a while."""
    strike = Strike(slot="", at=time.time())
    store = psutil.Process(place.cluster.nodes[0]["gcs_server"])
    store.send_signal(signal.SIGSTOP)
    await asyncio.sleep(PAUSE_SECONDS)
    _thaw(place, store, strike)
    strike.detected = _first(place, {"cluster_not_seen"}, strike.at)
    strike.ready = strike.at  # Nothing may stand still meanwhile.
    return strike


async def node_stopped(place: Place) -> Strike:
    """Stop a node's raylet until the head gives the node up; another node joins."""
    strike, raylet = Strike(slot="", at=time.time()), place.raylet()
    raylet.send_signal(signal.SIGSTOP)
    await asyncio.sleep(PAUSE_SECONDS)
    _thaw(place, raylet, strike)
    strike.detected = _first(place, LEFT, strike.at)
    await asyncio.to_thread(place.cluster.add_node, place.engines)
    strike.ready = time.time()
    return strike


async def node_killed(place: Place) -> Strike:
    """Kill a node's raylet, with which its engines end; another node joins."""
    raylet = place.raylet()
    strike = await _signalled(place, raylet, signal.SIGKILL, {"engine_exited"})
    await asyncio.to_thread(place.cluster.add_node, place.engines)
    strike.ready = time.time()
    return strike


async def _signalled(
    place: Place, process: psutil.Process, number: signal.Signals, events: Collection[str]
) -> Strike:
    """Send a signal, and wait until the service says that something ended."""
    strike = Strike(slot="", at=time.time())
    os.kill(process.pid, number)

    async def noticed() -> bool:
        strike.detected = _first(place, events, strike.at)
        return strike.detected is not None

    await until(noticed, BOUND_SECONDS, f"{' or '.join(events)} after {number.name}")
    strike.ready = strike.detected
    return strike


def _first(place: Place, events: Collection[str], after: float) -> float | None:
    """Return when one of these events was first logged after a moment; None: never."""
    log = list(place.service.log)
    found = (moment(line) for line in log if line["event"] in events)
    return next((at for at in found if at >= after), None)


def _thaw(place: Place, process: psutil.Process, strike: Strike) -> None:
    """Let a stopped process go on, and note what was over by then: it may change none of it."""
    strike.thawed = rows_of(place.store)
    process.send_signal(signal.SIGCONT)


SCENES: Final = (
    Scene(name="engine's process SIGKILL", strike=child_killed),
    Scene(name="engine's process SIGSTOP", strike=child_stopped),
    Scene(name="engine's process with torch SIGKILL", strike=child_killed, torch=True),
    Scene(name="engine's process with torch SIGSTOP", strike=child_stopped, torch=True),
    Scene(name="actor SIGKILL", strike=actor_killed),
    Scene(name="actor SIGSTOP, then SIGCONT", strike=actor_stopped),
    Scene(name="driver SIGKILL", strike=driver_killed, again=False),
    Scene(name="driver SIGSTOP", strike=driver_stopped, again=False),
    Scene(name="service SIGKILL", strike=service_killed, again=False),
    Scene(name=f"service SIGSTOP for {PAUSE_SECONDS:g} s", strike=service_stopped, again=False),
    Scene(name="node SIGKILL", strike=node_killed),
    Scene(name=f"node SIGSTOP for {PAUSE_SECONDS:g} s", strike=node_stopped, again=False),
    Scene(name="head's store SIGKILL", strike=head_killed, again=False),
    Scene(name=f"head's store SIGSTOP for {PAUSE_SECONDS:g} s", strike=head_stopped, again=False),
)
