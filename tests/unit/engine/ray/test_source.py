"""Engines of a cluster join and leave as a driver says, and outlive it."""

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from service.config.table import Config
from service.core.events import UnloadReason
from service.engine.base import Engine, EngineState
from service.engine.protocol import EngineAdopted, EngineReady, Event
from service.engine.ray import driver
from service.engine.ray import source as sources
from service.engine.ray.engine import LOST_SECONDS, RemoteEngine
from service.engine.ray.source import NAME_FILE, RaySource, name_of_service
from service.telemetry.metrics import Metrics
from tests.support.wait import until
from tests.unit.engine.ray import drivers

SECONDS = 60.0


class Slots:
    """Who takes the engines: starts those that join, and stops those that leave."""

    def __init__(self, folder: Path, entry: Any) -> None:
        self.config = Config(data_dir=str(folder))
        self.source = RaySource(self.config, entry=entry, worker="module:worker")
        self.metrics = Metrics()
        self.source.measure(self.metrics)
        self.engines: list[RemoteEngine] = []
        self.left: list[Engine] = []
        self.told: list[Event] = []
        self.heard_at: list[list[Event]] = []
        """What engines had told by the time when all had answered."""
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def joined(self, engine: Engine) -> None:
        assert isinstance(engine, RemoteEngine)
        engine.name = str(len(self.engines))
        self.engines.append(engine)
        self._later(engine.start(self._hear))

    def leaving(self, engine: Engine) -> None:
        self.left.append(engine)
        self._later(engine.stop())

    async def start(self) -> None:
        await self.source.start(self.joined, self.leaving, self.heard)

    def heard(self) -> None:
        self.heard_at.append([*self.told])
        self._changed.set()

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        self._changed.set()

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _task: self._changed.set())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what the driver causes."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def ready(self) -> list[str]:
        return [each.actor for each in self.engines if each.state is EngineState.READY]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"sd_cluster_{name}", labels)

    def notes(self) -> list[str]:
        return (Path(self.config.data_dir) / drivers.TOLD).read_text(encoding="utf-8").splitlines()


@pytest.fixture
async def slots(tmp_path) -> AsyncIterator[Callable[[Any], Slots]]:
    """Return what makes them; their drivers are ended."""
    made: list[Slots] = []

    def make(entry: Any) -> Slots:
        made.append(Slots(tmp_path, entry))
        return made[-1]

    yield make
    for each in made:
        await each.source.stop()


async def test_engines_join_and_leave_as_the_driver_says(slots):
    """One that left is ended there; the driver knows the service and what hosts run."""
    here = slots(drivers.two_engines)
    await here.start()
    await here.until(lambda: len(here.ready()) == 2)

    async def seen() -> bool:
        return bool(here.value("nodes") == 2)

    await until(seen, SECONDS, "the driver tells of its cluster")
    assert here.value("driver_up") == 1
    assert here.value("engines", status="answering") == 2
    here.engines[0].unload_model("m", UnloadReason.ASKED)
    await here.until(lambda: here.left)
    assert [each.actor for each in here.engines] == [*drivers.NAMES]
    assert here.left == [here.engines[1]]
    assert here.value("places") == 1
    assert here.value("engines_lost_total") == 0
    await here.source.stop()
    name = name_of_service(here.config.data_dir)
    assert here.notes()[:2] == [
        f"started {name} module:worker",
        f"ToEngine {drivers.NAMES[0]}",
    ]
    assert f"Drain {drivers.NAMES[1]}" in here.notes()
    assert here.notes()[-1] == "stopped"


async def test_it_tells_once_when_all_engines_have_said_what_they_go_on_with(slots):
    """Not before one that the cluster has and that answers late."""
    here = slots(drivers.finds_one_late)
    await here.start()
    await here.until(here.ready)

    async def seen() -> bool:
        return bool(here.value("places") == 2)

    await until(seen, SECONDS, "the driver tells of its cluster")
    assert here.heard_at == []
    here.engines[0].unload_model("m", UnloadReason.ASKED)
    await here.until(lambda: here.heard_at)
    await here.source.stop()
    assert [[type(each) for each in told] for told in here.heard_at] == [
        [EngineAdopted, EngineReady] * 2
    ]


async def test_a_driver_that_ends_is_started_again(slots):
    """Its engines stay, but for those that the next one does not find."""
    here = slots(drivers.dies_once)
    await here.start()
    await here.until(lambda: here.left)
    assert [each.actor for each in here.engines] == [*drivers.NAMES]
    assert here.left == [here.engines[1]]
    assert here.notes() == [f"started {name_of_service(here.config.data_dir)}"] * 2
    assert here.value("driver_restarts_total") == 1
    assert here.value("engines_lost_total") == 1


async def test_a_drain_that_a_driver_takes_with_it_is_told_to_the_next(slots):
    """Or its actor would stay, and its node with it."""
    here = slots(drivers.dies_at_a_drain)
    await here.start()

    async def told() -> bool:
        noted = (Path(here.config.data_dir) / drivers.TOLD).exists()
        return noted and f"again Drain {drivers.NAMES[1]}" in here.notes()

    await until(told, SECONDS, "the next driver is told")


async def test_an_engine_that_is_found_in_a_drain_tells_first_what_it_has(slots):
    """It leaves at the next look; let go at once it would take its jobs with it."""
    here = slots(drivers.finds_a_drain)
    moves: list[str] = []

    def joined(engine: Any) -> None:
        moves.append(f"joined {engine.actor}")
        here.joined(engine)

    def leaving(engine: Any) -> None:
        moves.append(f"leaving {engine.actor}")
        here.leaving(engine)

    await here.source.start(joined, leaving, here.heard)
    await here.until(lambda: len(here.left) == 2)
    one, two = drivers.NAMES
    assert moves == [f"joined {one}", f"joined {two}", f"leaving {one}", f"leaving {two}"]


async def test_a_cluster_that_no_driver_saw_for_a_while_is_unreachable(slots, monkeypatch):
    """From the start on, or since it was seen last; engines alone do not tell of it."""
    monkeypatch.setattr(sources, "UNREACHABLE_SECONDS", 0.0)
    here = slots(drivers.sees_no_cluster)
    await here.start()
    await here.until(here.ready)
    assert here.source.unreachable() > 0
    monkeypatch.setattr(sources, "UNREACHABLE_SECONDS", SECONDS)
    assert here.source.unreachable() == 0
    await here.source.stop()
    seen = slots(drivers.two_engines)
    began = asyncio.get_running_loop().time()
    await seen.start()
    await seen.until(lambda: len(seen.ready()) == 2)

    async def nodes() -> bool:
        return bool(seen.value("nodes") == 2)

    await until(nodes, SECONDS, "the driver tells of its cluster")
    monkeypatch.setattr(sources, "UNREACHABLE_SECONDS", 0.0)
    assert 0 <= seen.source.unreachable() < asyncio.get_running_loop().time() - began


async def test_a_driver_that_cannot_be_understood_is_replaced(slots):
    """What it sent before counts for nothing."""
    here = slots(drivers.garbled)
    await here.start()
    await here.until(here.ready)
    assert here.notes() == ["garbled"]


async def test_a_driver_that_hangs_is_killed(slots, monkeypatch):
    """It is to say something each second; another one is started."""
    monkeypatch.setattr(sources, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(sources, "STOP_SECONDS", 0.1)
    here = slots(drivers.deaf)
    await here.start()
    first = here.source.pid
    async with asyncio.timeout(SECONDS):
        while here.source.pid in {first, None}:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    await here.source.stop()


def test_a_driver_that_hangs_is_killed_before_its_engines_are_lost():
    """A look is late by a second, the last renewals by two; the next one has three to attach."""
    assert sources.SILENT_SECONDS + 1 + 2 + 3 <= LOST_SECONDS


async def test_a_stop_waits_for_a_driver_that_hangs_a_bounded_time(slots, monkeypatch):
    """Then it is killed."""
    monkeypatch.setattr(sources, "STOP_SECONDS", 0.1)
    here = slots(drivers.deaf)
    await here.start()
    pid = here.source.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await here.source.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_service_keeps_its_name(tmp_path):
    """In its DATA_DIR, for nobody else to read; without one it has another each time."""
    name = name_of_service(str(tmp_path))
    assert name_of_service(str(tmp_path)) == name
    assert stat.S_IMODE((tmp_path / NAME_FILE).stat().st_mode) == 0o600
    assert name_of_service("") != name_of_service("")


def test_a_file_without_a_name_gets_one(tmp_path):
    """As one has that was cut short: else the service would have another name at each start."""
    (tmp_path / NAME_FILE).touch()
    name = name_of_service(str(tmp_path))
    assert name
    assert name_of_service(str(tmp_path)) == name
    assert [each.name for each in tmp_path.iterdir()] == [NAME_FILE]


def test_a_head_that_is_not_there_is_told_at_once(unused_tcp_port):
    """Ray itself would try for minutes; it is not even imported."""
    config = Config(
        engine="ray",
        ray_address=f"127.0.0.1:{unused_tcp_port}",
        ray_token_file="/none",  # noqa: S106 - no password
    )
    with pytest.raises(OSError, match="refused"):
        driver.connect(config)
