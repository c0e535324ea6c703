"""The driver over a cluster on paper: whom it links, whom it ends, and what it tells."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from multiprocessing import Pipe
from typing import Any

import pytest
import structlog.testing

from service.config.table import Config
from service.engine.channel import Channel, written
from service.engine.ray import actor, driver
from service.engine.ray.driver import Driver, Place
from service.engine.ray.link import HostGoneError, HostSilentError
from service.engine.ray.messages import (
    FROM_DRIVER,
    TO_DRIVER,
    ClusterState,
    Drain,
    DriverAlive,
    EngineAttached,
    EngineGone,
    EngineJoined,
    Pulse,
    Stop,
)

NAME, OTHER = "sd/home/one/0", "sd/home/two/0"
WRITES = """
import logging, os, sys
from service.config.table import Config
from service.engine.ray import output

ray = logging.getLogger("ray")
ray.addHandler(logging.StreamHandler(sys.stderr))
ray.propagate = False
lines = output.capture(Config(log_format="json"))
output.quiet()
print("(raylet)\\x1b[0m a worker", end=" ")
print("died")
print("\\n\\x1b[33m", file=sys.stderr)
os.write(2, b"[W 1 2] client.cc:1: \\xff\\n")
os.write(1, b"x" * 5000 + b"\\n")
ray.warning("SIGTERM handler is not set")
ray.error("lost")
os.close(1), os.close(2), sys.stderr.close()
for thread in output.threading.enumerate():
    if thread.name == "ray-output":
        thread.join()
lines.end()
"""


def place(*, draining: bool = False) -> Place:
    return Place(
        node="one", address="10.0.0.2", own_resource=True, gpu=False, engines=1, draining=draining
    )


class PaperActor:
    """An actor that is attached to, silent or dead at birth."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.killed = False

    async def call(self, method: str, *arguments: Any, seconds: float) -> Any:
        if self.error is not None:
            raise self.error
        if method != "attach":
            return written(Pulse(number=2, silence=0.0, late=False))
        attached = EngineAttached(
            engine=NAME, generation=arguments[1], held=(), ready=b"", starts=1, gpu="", pulse=1
        )
        return written(attached)

    async def events(self, generation: int) -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    async def kill(self) -> None:
        self.killed = True


class Paper:
    """A cluster: its places, the actors in it, and those that were made."""

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.actors: dict[str, PaperActor] = {}
        self.made: list[str] = []
        self.error: Exception | None = None
        """Of actors that are made."""
        self.said: list[Any] = []

    def make(self, name: str, *_where: Any) -> PaperActor:
        self.made.append(name)
        return self.actors.setdefault(name, PaperActor(self.error))

    def found(self, name: str, _namespace: str) -> PaperActor | None:
        return self.actors.get(name)

    def states(self) -> int:
        return sum(isinstance(each, ClusterState) for each in self.said)

    async def looks(self, times: int = 2) -> None:
        """Wait until the driver has looked so often."""
        wanted = self.states() + times
        await self.until(lambda: self.states() >= wanted)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - the driver tells of it through a pipe
                await asyncio.sleep(0.01)


@pytest.fixture
def cluster(monkeypatch) -> Paper:
    """Return the cluster that a driver sees."""
    paper = Paper()
    monkeypatch.setattr(driver, "SCAN_SECONDS", 0.02)
    monkeypatch.setattr(driver, "connect", lambda _config: None)
    monkeypatch.setattr(driver, "places_of", lambda _namespace: dict(paper.places))
    monkeypatch.setattr(driver, "made", paper.make)
    monkeypatch.setattr(actor, "found", paper.found)
    return paper


@pytest.fixture
async def service(cluster) -> AsyncIterator[Channel[Any, Any]]:
    """Start a driver, and return the service's end of its pipe."""
    async with driving(cluster) as channel:
        yield channel


@contextlib.asynccontextmanager
async def driving(cluster: Paper) -> AsyncIterator[Channel[Any, Any]]:
    here, there = Pipe()
    driven = Driver(Channel(there, TO_DRIVER), Config(), service="me", worker="m:w")
    working = asyncio.create_task(driven.run())
    channel: Channel[Any, Any] = Channel(here, FROM_DRIVER)
    over = threading.Event()
    reading = asyncio.create_task(asyncio.to_thread(read, channel, cluster.said, over))
    try:
        yield channel
    finally:
        channel.send(Stop())
        code = await working
        over.set()
        await reading
        here.close()  # A thread of the driver reads the other end, until there is nobody here.
    assert code == 0


def read(channel: Channel[Any, Any], said: list[Any], over: threading.Event) -> None:
    """Take what a driver says; a pipe that is only closed would not wake who reads it."""
    while not over.is_set():
        if channel.poll(0.02):
            said.append(channel.receive())


def state(cluster: Paper) -> ClusterState:
    """Return what the driver said last of the cluster."""
    return [each for each in cluster.said if isinstance(each, ClusterState)][-1]


@pytest.mark.usefixtures("service")
async def test_an_engine_on_a_node_that_leaves_is_linked_and_none_is_made_there(cluster):
    """A driver that comes in the middle of a drain takes up what goes on."""
    cluster.places = {NAME: place(draining=True), OTHER: place(draining=True)}
    cluster.actors = {NAME: PaperActor()}
    await cluster.until(lambda: any(isinstance(each, EngineJoined) for each in cluster.said))
    await cluster.looks()
    assert [each.engine for each in cluster.said if isinstance(each, EngineJoined)] == [NAME]
    assert not cluster.made
    assert state(cluster) == ClusterState(nodes=0, engines=(), draining=(NAME, OTHER))


async def test_an_engine_is_ended_that_was_let_go_before_it_was_found(cluster, service):
    """By the driver before, or by none; its actor would keep its node."""
    service.send(Drain(engine=NAME))
    await cluster.looks()
    cluster.actors = {NAME: PaperActor()}
    service.send(Drain(engine=NAME))
    cluster.places = {NAME: place(draining=True)}
    await cluster.until(lambda: cluster.actors[NAME].killed)
    await cluster.looks()
    assert not any(isinstance(each, EngineJoined) for each in cluster.said)


@pytest.mark.usefixtures("service")
async def test_an_engine_that_never_joined_ends_with_its_node(cluster):
    """The service does not know it, and cannot let it go."""
    cluster.error = HostSilentError("its node is gone")
    cluster.places = {NAME: place()}
    await cluster.until(lambda: cluster.made)
    await cluster.looks()
    cluster.places = {}
    await cluster.until(lambda: cluster.actors[NAME].killed)


@pytest.mark.usefixtures("service")
async def test_an_actor_that_dies_at_birth_is_not_made_again_at_once(cluster):
    """It would die again."""
    cluster.error = HostGoneError("another version")
    cluster.places = {NAME: place()}
    await cluster.until(lambda: any(isinstance(each, EngineGone) for each in cluster.said))
    await cluster.looks(4)
    assert cluster.made == [NAME]


async def test_an_engine_that_was_let_go_may_come_again_with_its_node(cluster, service):
    """A name that is no more is forgotten."""
    cluster.places = {NAME: place()}
    await cluster.until(lambda: any(isinstance(each, EngineJoined) for each in cluster.said))
    service.send(Drain(engine=NAME))
    await cluster.until(lambda: cluster.actors[NAME].killed)
    await cluster.looks()
    assert cluster.made == [NAME]
    cluster.places = {}
    await cluster.looks()
    cluster.places = {NAME: place()}
    await cluster.until(lambda: cluster.made == [NAME, NAME])


async def test_a_head_that_does_not_answer_is_told_once_in_a_while(cluster, monkeypatch):
    """Ray would wait for it without a word; the driver lives meanwhile, and says so."""
    back = threading.Event()
    monkeypatch.setattr(driver, "UNSEEN_SECONDS", 0.01)
    monkeypatch.setattr(driver, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(driver, "places_of", lambda _namespace: back.wait(20) and {})
    with structlog.testing.capture_logs() as lines:
        async with driving(cluster):

            def told() -> list[Any]:
                return [each for each in lines if each["event"] == "cluster_not_seen"]

            await cluster.until(told)
            beats = cluster.said.count(DriverAlive())
            await cluster.until(lambda: cluster.said.count(DriverAlive()) > beats + 2)
            back.set()
            await cluster.looks(1)
            assert len(told()) == 1


def test_what_ray_writes_to_the_standard_streams_is_lines_of_the_log():
    """Whole lines without colours, none too long, and of its logger what matters."""
    done = subprocess.run(
        [sys.executable, "-c", WRITES], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert sorted(line.get("line", line["event"]) for line in lines) == [
        "(raylet) a worker died",
        "[W 1 2] client.cc:1: \N{REPLACEMENT CHARACTER}",
        "lost",
        "x" * 1000,
    ]
