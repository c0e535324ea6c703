"""Engines of a Ray cluster: they join and leave as its nodes do."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from service.config.table import Config
from service.engine.base import EngineState
from service.engine.channel import Channel
from service.engine.process.child import Child
from service.engine.process.parent import RESTART_DELAYS
from service.engine.ray import driver
from service.engine.ray.engine import LOST_SECONDS, RemoteEngine
from service.engine.ray.messages import (
    FROM_DRIVER,
    TO_DRIVER,
    Alive,
    ClusterState,
    Drain,
    DriverAlive,
    EngineAttached,
    EngineGone,
    EngineJoined,
    FromDriver,
    FromEngine,
    Stop,
    ToDriver,
)
from service.engine.ray.metrics import ClusterMetrics, EngineLease
from service.engine.source import EngineSource, OnEngine, OnHeard
from service.system.executors import FILES
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

STOP_SECONDS: Final = 5.0
"""How long the driver may take to end the engines."""

SILENT_SECONDS: Final = 4.0
"""A driver that says nothing for so long hangs, and is killed, at most a second later: engines end
themselves 8 s after it hung at the earliest, so that the next one has 3 s to attach."""

START_SECONDS: Final = 60.0
"""The same before its first word: on a busy machine Python alone takes a while to start."""

ASLEEP_SECONDS: Final = 1.0
"""A look that comes so late tells that the service itself stood still."""

UNREACHABLE_SECONDS: Final = 30.0
"""A cluster that was not seen for so long is not waited for by new requests."""

NAME_FILE: Final = "cluster_service"
"""File in DATA_DIR with the name by which hosts know the service again."""

DriverChild = Child[ToDriver, FromDriver]
DriverMain = Callable[..., None]


class RaySource(EngineSource):
    """Keeps a driver, and an engine for each that the driver finds.

    An engine stays when the driver ends: the next one finds it again. It leaves when its node does.
    """

    engines_join = True
    adoption_seconds = LOST_SECONDS + 2.0

    def __init__(
        self, config: Config, *, entry: DriverMain = driver.run, worker: str = driver.WORKER
    ) -> None:
        self._config, self._entry, self._worker = config, entry, worker
        self._joined: OnEngine = lambda _engine: None
        self._leaving: OnEngine = lambda _engine: None
        self._heard: OnHeard | None = None
        """To be called when all engines of the cluster have said what they go on with."""
        self._places: AbstractSet[str] = frozenset()
        """Names of the engines that the cluster offers, as it was seen last."""
        self._answered: set[str] = set()
        """Engines that have said what they go on with."""
        self._engines: dict[str, RemoteEngine] = {}
        """By the names of their actors, those on their way out included."""
        self._retiring: set[str] = set()
        self._fresh: set[str] = set()
        """Engines that joined since the last look at the cluster."""
        self._drained: set[str] = set()
        """Engines that ended their jobs; a driver that comes later is to end them."""
        self._metrics = ClusterMetrics(self._leases)
        self._service = ""
        self._child: DriverChild | None = None
        self._due = 0.0
        """Until then the driver is to be heard."""
        self._seen = 0.0
        """When a driver last saw the cluster."""
        self._failures = 0
        """Drivers in a row that ended without a look at the cluster."""
        self._stopping = False
        self._restart: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The driver's process id, or None when there is none."""
        return self._child.pid if self._child else None

    def measure(self, metrics: Metrics) -> None:
        """Add the metrics of the cluster."""
        metrics.watch(self._metrics)

    def unreachable(self) -> float:
        """Return for how many seconds no driver saw the cluster; 0 while that is not too long."""
        seconds = asyncio.get_running_loop().time() - self._seen
        return seconds if seconds > UNREACHABLE_SECONDS else 0.0

    def _leases(self) -> list[EngineLease]:
        engines = self._engines.items()
        return [each.lease(leaving=name in self._retiring) for name, each in engines]

    def _adopted(self, jobs: int) -> None:
        self._metrics.jobs_adopted += jobs

    async def start(self, joined: OnEngine, leaving: OnEngine, heard: OnHeard) -> None:
        """Start the driver; engines join as it finds them."""
        self._joined, self._leaving, self._heard = joined, leaving, heard
        self._seen = asyncio.get_running_loop().time()
        self._service = await FILES.run(name_of_service, self._config.data_dir)
        self._look_later()
        await self._spawn()

    async def stop(self) -> None:
        """Let the driver end the engines and leave; kill it when that takes too long."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        if self._child is None:
            return
        self._child.send(Stop())
        if not await self._child.wait(STOP_SECONDS):
            self._child.kill()
            await self._child.wait()

    async def _spawn(self) -> None:
        entry: Callable[[Channel[FromDriver, ToDriver], Config], None] = partial(
            self._entry, service=self._service, worker=self._worker
        )
        child: DriverChild = Child(entry, self._config, "ray", sent=TO_DRIVER, received=FROM_DRIVER)
        try:
            await child.start(partial(self._hear, child), partial(self._ended, child))
        except (OSError, RuntimeError, MemoryError) as error:
            log.warning("driver_start_failed", error=str(error))
            self._start_again()
            return
        self._child = child
        self._due = asyncio.get_running_loop().time() + START_SECONDS
        log.info("driver_started", pid=child.pid)
        for name in self._drained:
            child.send(Drain(engine=name))

    def _send(self, order: ToDriver | Callable[[], ToDriver | None]) -> None:
        if isinstance(order, Drain):
            self._drained.add(order.engine)
        if self._child is not None:
            self._child.send(order)

    def _hear(self, child: DriverChild, said: FromDriver) -> None:
        if self._stopping or child.cause:
            return
        self._due = asyncio.get_running_loop().time() + SILENT_SECONDS
        self._metrics.driver_up = True
        match said:
            case EngineJoined():
                if said.engine not in self._engines:
                    engine = RemoteEngine(said.engine, said.node, self._send, self._adopted)
                    self._engines[said.engine] = engine
                    self._fresh.add(said.engine)
                    self._joined(engine)
            case EngineAttached() | FromEngine() | Alive() | EngineGone():
                if (found := self._engines.get(said.engine)) is not None:
                    tell(found, said)
                    self._answers(said.engine, found)
                if isinstance(said, FromEngine):
                    self._metrics.batches += 1
                    self._metrics.events += len(said.events)
            case ClusterState():
                self._failures = 0
                self._seen = asyncio.get_running_loop().time()
                self._metrics.saw(nodes=said.nodes, places=len(said.engines))
                self._retire({*said.engines}, {*said.draining})
                self._places = {*said.engines, *said.draining}
                self._drained &= self._places
                self._look_at_answers()
            case DriverAlive():
                pass

    def _answers(self, name: str, engine: RemoteEngine) -> None:
        """Note that an engine has said what it goes on with; before it answers, it has not."""
        if self._heard is None or name in self._answered:
            return
        if engine.lease(leaving=False).status == "answering":
            self._answered.add(name)
            self._look_at_answers()

    def _look_at_answers(self) -> None:
        """Tell once that all engines of the cluster have answered."""
        if self._heard is not None and self._places and self._places <= self._answered:
            log.info("engines_heard", engines=len(self._places))
            heard, self._heard = self._heard, None
            heard()

    def _retire(self, wanted: AbstractSet[str], draining: AbstractSet[str]) -> None:
        """Let engines go that are to end their jobs, and forget those that have.

        One that has just joined on a node that leaves tells first what it goes on with.
        """
        for name in [*self._retiring]:
            if self._engines[name].state is EngineState.STOPPED:
                self._retiring.discard(name)
                del self._engines[name]
        for name in self._engines.keys() - wanted - self._retiring - (self._fresh & draining):
            self._retiring.add(name)
            self._metrics.engines_lost += name not in draining
            self._leaving(self._engines[name])
        self._fresh.clear()

    def _ended(self, child: DriverChild) -> None:
        if child is not self._child:
            return
        self._child = None
        self._metrics.driver_up = False
        for engine in self._engines.values():
            engine.cut_off()
        if not self._stopping:
            log.warning("driver_ended", exit_code=child.exit_code, cause=child.cause)
            self._start_again()

    def _start_again(self) -> None:
        delay = RESTART_DELAYS[min(self._failures, len(RESTART_DELAYS) - 1)]
        self._failures += 1
        self._metrics.driver_restarts += 1
        self._restart = asyncio.create_task(self._spawn_after(delay))

    async def _spawn_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._spawn()

    def _look_later(self) -> None:
        due = asyncio.get_running_loop().time() + 1.0
        self._timer = asyncio.get_running_loop().call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        """Look once a second whether the driver was heard."""
        now = asyncio.get_running_loop().time()
        if now - due > ASLEEP_SECONDS:
            self._due += now - due  # What it said meanwhile is on its way.
            self._seen += now - due
        if self._child is not None and now > self._due:
            log.error("driver_stalled", pid=self.pid)
            self._child.kill("stalled")
        self._look_later()


def tell(engine: RemoteEngine, said: EngineAttached | FromEngine | Alive | EngineGone) -> None:
    """Let an engine hear what its host, or the driver, says."""
    match said:
        case EngineAttached():
            engine.attached(said)
        case FromEngine():
            engine.heard(said)
        case Alive():
            engine.alive(said)
        case EngineGone(reason=reason):
            engine.gone(reason)


def name_of_service(data_dir: str) -> str:
    """Return the name by which hosts know a service again after it was killed.

    It is kept in ``data_dir``, of which one service at a time is the owner; a service without one
    has a new name each time.
    """
    name = uuid.uuid4().hex
    if not data_dir:
        return name
    path = Path(data_dir) / NAME_FILE
    with contextlib.suppress(FileNotFoundError):
        if kept := path.read_text(encoding="ascii").strip():
            return kept
    # A service that is killed in here leaves no file without a name.
    new = path.with_name(f"{NAME_FILE}.new")
    new.touch(0o600)
    new.write_text(name, encoding="ascii")
    new.replace(path)
    return name
