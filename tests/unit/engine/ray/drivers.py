"""Drivers without Ray, which say what a test wants; each is run in a process of its own."""

import os
import time
from pathlib import Path

from service.config.table import Config
from service.engine.channel import Channel, written
from service.engine.protocol import EngineReady
from service.engine.ray.messages import (
    Alive,
    ClusterState,
    DriverAlive,
    EngineAttached,
    EngineJoined,
    FromDriver,
    Stop,
    ToDriver,
)
from tests.support.simulation.fake_engine import FAKE_MODEL

DriverChannel = Channel[FromDriver, ToDriver]
NAMES = ("sd/home/one/0", "sd/home/two/0")
TOLD = "told"
"""File in DATA_DIR that a driver writes what it is told to."""


BEAT_SECONDS = 0.05


def _attach(channel: DriverChannel, name: str) -> Alive:
    """Tell of an engine, and return its sign of life."""
    generation = time.time_ns()
    channel.send(EngineJoined(engine=name, node="10.0.0.2"))
    channel.send(
        EngineAttached(
            engine=name,
            generation=generation,
            held=(),
            ready=written(EngineReady(model=FAKE_MODEL)),
            starts=1,
            gpu="",
        )
    )
    alive = Alive(engine=name, generation=generation, silence=0.0, late=False)
    channel.send(alive)
    return alive


def two_engines(channel: DriverChannel, config: Config, *, service: str, worker: str) -> None:
    """Find two engines, and no more of the second one when it is told anything but to stop."""
    _note(config, f"started {service} {worker}")
    for name in NAMES:
        _attach(channel, name)
    channel.send(ClusterState(nodes=2, engines=NAMES, draining=()))
    while not isinstance(order := channel.receive(), Stop):
        _note(config, f"{type(order).__name__} {order.engine}")
        channel.send(ClusterState(nodes=1, engines=NAMES[:1], draining=NAMES[1:]))
    _note(config, "stopped")


def finds_one_late(channel: DriverChannel, _config: Config, **_names: str) -> None:
    """Find the second of two engines only when told anything."""
    seen = ClusterState(nodes=2, engines=NAMES, draining=())
    said: list[FromDriver] = [seen, _attach(channel, NAMES[0])]
    while True:
        for each in said:
            channel.send(each)
        if not channel.pipe.poll(BEAT_SECONDS):
            continue
        if isinstance(channel.receive(), Stop):
            return
        said.append(_attach(channel, NAMES[1]))


def sees_no_cluster(channel: DriverChannel, _config: Config, **_names: str) -> None:
    """Find an engine, but never the nodes of its cluster."""
    _attach(channel, NAMES[0])
    while not isinstance(channel.receive(), Stop):
        pass


def dies_once(channel: DriverChannel, config: Config, **names: str) -> None:
    """Find two engines and end; the next time find the first one only, and stay."""
    first = not (Path(config.data_dir) / TOLD).exists()
    _note(config, f"started {names['service']}")
    for name in NAMES if first else NAMES[:1]:
        _attach(channel, name)
    channel.send(ClusterState(nodes=2, engines=NAMES if first else NAMES[:1], draining=()))
    if first:
        os._exit(3)
    while not isinstance(channel.receive(), Stop):
        pass


def dies_at_a_drain(channel: DriverChannel, config: Config, **_names: str) -> None:
    """Let an engine go, and end before it is; the next time say what one is told."""
    first = not (Path(config.data_dir) / TOLD).exists()
    _note(config, "started")
    if first:
        for name in NAMES:
            _attach(channel, name)
        channel.send(ClusterState(nodes=2, engines=NAMES, draining=()))
    channel.send(ClusterState(nodes=1, engines=NAMES[:1], draining=NAMES[1:]))
    while not isinstance(order := channel.receive(), Stop):
        if first:
            os._exit(3)
        _note(config, f"again {type(order).__name__} {order.engine}")


def finds_a_drain(channel: DriverChannel, _config: Config, **_names: str) -> None:
    """Find two engines, one after the other, on nodes that leave."""
    for name in NAMES:
        _attach(channel, name)
        channel.send(ClusterState(nodes=0, engines=(), draining=NAMES))
    channel.send(ClusterState(nodes=0, engines=(), draining=NAMES))
    while not isinstance(channel.receive(), Stop):
        pass


def garbled(channel: DriverChannel, config: Config, **_names: str) -> None:
    """Say what is no message the first time."""
    if not (Path(config.data_dir) / TOLD).exists():
        _note(config, "garbled")
        channel.pipe.send_bytes(b"\xc1")
    _attach(channel, NAMES[0])
    while not isinstance(channel.receive(), Stop):
        pass


def deaf(channel: DriverChannel, config: Config, **_names: str) -> None:
    """Begin, and then hang."""
    _note(config, "started")
    channel.send(DriverAlive())
    while True:
        time.sleep(60)


def _note(config: Config, line: str) -> None:
    with (Path(config.data_dir) / TOLD).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
