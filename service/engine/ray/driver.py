"""The Ray driver: a process of the service's that finds the engines of a cluster.

Ray ends the process of a driver that has lost its cluster, without an exception, and blocks its
callers while it waits. So nobody else imports it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from service.config.table import Config
from service.engine.channel import Channel, GarbageError
from service.engine.ray import actor, output
from service.engine.ray.actor import CALLS, ActorHost, brief
from service.engine.ray.link import Generations, Link, Pauses, end
from service.engine.ray.messages import (
    Acknowledge,
    Attach,
    ClusterState,
    Drain,
    DriverAlive,
    End,
    FromDriver,
    Stop,
    ToDriver,
    ToEngine,
    Watch,
    written_settings,
)
from service.system.executors import Executor
from service.system.fair_line import Limits

log = structlog.get_logger(__name__)

WORKER: Final = "service.engine.process.worker:run"
"""What the child of a host runs."""

RESOURCE: Final = "sd_engine"
"""How many engines a node runs, where that is not one for each of its GPUs."""

SCAN_SECONDS: Final = 2.0
UNSEEN_SECONDS: Final = 10.0
"""A look at the cluster that takes so long is told: its head is away."""

TELL_SECONDS: Final = 60.0
"""Between two lines that tell it."""

BEAT_SECONDS: Final = 1.0
CONNECT_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 5.0
CURE: Final = (
    "Start the head, make this machine a node of its cluster (ray start --address), and give both "
    "the same token."
)

RECONNECT_SECONDS: Final = 300
"""How long a driver outlives its head, or the store of it: Ray's own value is 60."""

DriverChannel = Channel[FromDriver, ToDriver]
Answer = TypeVar("Answer")

WRITES: Final = Executor("driver-writer", Limits(most=1, each=1, alike=1), waiting=100_000)


def run(channel: DriverChannel, config: Config, *, service: str, worker: str = WORKER) -> None:
    """Find engines and carry messages until told to stop or the service is gone.

    ``service`` tells two services with one namespace apart; ``worker`` is ``module:name`` of what
    the hosts' children run.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = output.capture(config)
    code = 1
    try:
        code = asyncio.run(Driver(channel, config, service=service, worker=worker).run())
    except Exception:
        log.exception("driver_failed")
    finally:
        lines.end()
        os._exit(code)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an engine may run."""

    node: str
    """Ray's id of the node."""
    address: str
    own_resource: bool
    """Whether the node offers engines by ``RESOURCE``, not by its GPUs."""
    gpu: bool
    engines: int
    """How many run on that node."""
    draining: bool = False
    """Whether the node is leaving: engines there end their jobs, and none begins."""


class Driver:
    """Keeps a link to every engine of the cluster."""

    def __init__(
        self, channel: DriverChannel, config: Config, *, service: str, worker: str
    ) -> None:
        self._channel, self._config = channel, config
        self._service, self._worker = service, worker
        self._settings = written_settings(config)
        self._links: dict[str, Link] = {}
        self._ended: set[str] = set()
        """Engines that were let go for good."""
        self._to_end: set[str] = set()
        """Engines to end as soon as their actor is found."""
        self._pauses = Pauses()
        self._told = -TELL_SECONDS
        """When it was told last that the cluster is not seen."""
        self._generations = Generations()
        self._stop = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        """Links on their way out."""
        self._gone = False
        """Whether the service is gone."""

    async def run(self) -> int:
        """Connect, and work; return the exit code of the process."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="driver-reader", daemon=True).start()
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(self._stop.wait())
        connecting = asyncio.create_task(CALLS.run(connect, self._config))
        await asyncio.wait(
            {connecting, stopping},
            timeout=CONNECT_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if stopping.done():
            return 0
        if not connecting.done() or (error := connecting.exception()) is not None:
            late = f"no answer for {CONNECT_SECONDS:g} s"
            reason = brief(error) if connecting.done() and error else late
            log.error(
                "cluster_unreachable", address=self._config.ray_address, reason=reason, cure=CURE
            )
            return 1
        log.info("cluster_joined", address=self._config.ray_address, pid=os.getpid())
        scanning = asyncio.create_task(self._scan())
        await asyncio.wait({scanning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # A service that is gone may come again, and take up what its engines go on with.
        for link in self._links.values():
            self._end(link, kill=not self._gone)
        await asyncio.gather(*self._ending, return_exceptions=True)
        beating.cancel()
        return 1 if scanning.done() else 0

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take orders; runs on a thread."""
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            try:
                while True:
                    loop.call_soon_threadsafe(self._obey, self._channel.receive())
            except (EOFError, OSError):
                log.info("service_went_away")
            except GarbageError:
                log.exception("service_garbage")
            loop.call_soon_threadsafe(self._lost_service)

    def _lost_service(self) -> None:
        self._gone = True
        self._stop.set()

    def _obey(self, order: ToDriver) -> None:
        match order:
            case Stop():
                self._stop.set()
            case ToEngine() | Watch() | Acknowledge():
                if (link := self._links.get(order.engine)) is not None:
                    link.order(order)
            case Attach():
                if (link := self._links.get(order.engine)) is not None:
                    link.attach_again()
            case Drain() | End():
                if isinstance(order, Drain):
                    self._ended.add(order.engine)
                if (link := self._links.pop(order.engine, None)) is not None:
                    self._end(link)
                else:
                    self._to_end.add(order.engine)

    def _end(self, link: Link, *, kill: bool = True) -> None:
        self._later(link.end(kill=kill))

    def _later(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _send(self, said: FromDriver) -> None:
        """Say something to the service, after what was said before; wait while the pipe is full."""
        try:
            await WRITES.run(self._channel.send, said)
        except OSError:
            self._lost_service()

    async def _beat(self) -> None:
        while True:
            await self._send(DriverAlive())
            await asyncio.sleep(BEAT_SECONDS)

    async def _scan(self) -> None:
        """Look at the nodes every few seconds, and link the engines that are new."""
        while True:
            try:
                places = await self._answer(places_of, self._config.ray_namespace)
            except Exception as error:  # noqa: BLE001 - links work without a head; it comes again
                self._not_seen(brief(error))
            else:
                await self._see(places)
            await asyncio.sleep(SCAN_SECONDS)

    async def _answer(self, ask: Callable[..., Answer], *what: Any) -> Answer:
        """Return what the head answers; Ray waits for it as long as it is away."""
        asked = asyncio.create_task(CALLS.run(ask, *what))
        while not (await asyncio.wait({asked}, timeout=UNSEEN_SECONDS))[0]:
            self._not_seen(f"the head has not answered for {UNSEEN_SECONDS:g} s")
        return asked.result()

    def _not_seen(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            log.warning("cluster_not_seen", reason=reason)

    async def _see(self, places: Mapping[str, Place]) -> None:
        """Link the engines that are new, let go those that are no more, and tell the service."""
        self._forget(places)
        for name in self._to_end & places.keys():
            await self._end_found(name)
        for name, place in places.items():
            if name not in self._links and name not in self._ended:
                await self._link(name, place)
        draining = tuple(name for name, place in places.items() if place.draining)
        engines = tuple(name for name, place in places.items() if not place.draining)
        nodes = {places[name].node for name in engines}
        await self._send(ClusterState(nodes=len(nodes), engines=engines, draining=draining))

    def _forget(self, places: Mapping[str, Place]) -> None:
        """Forget actors that have ended, and those of nodes that are gone.

        An engine that has joined is let go by the service, one that has not is unknown there.
        """
        now = asyncio.get_running_loop().time()
        for name, link in list(self._links.items()):
            if link.joined:
                self._pauses.forget(name)
            if link.over:
                del self._links[name]
                if not link.joined:
                    self._pauses.ended(name, now)
            elif name not in places and not link.joined:
                self._end(self._links.pop(name))
        for gone in self._pauses.names() - places.keys():
            self._pauses.forget(gone)
        self._ended &= places.keys()
        self._to_end &= places.keys()

    async def _end_found(self, name: str) -> None:
        """End an engine that the service let go before it was linked."""
        if (link := self._links.pop(name, None)) is not None:
            self._end(link)
        else:
            try:
                host = await self._answer(actor.found, name, self._config.ray_namespace)
            except Exception as error:  # noqa: BLE001 - the next look tries again
                log.warning("engine_not_ended", actor=name, reason=brief(error))
                return
            if host is not None:
                self._later(end(host))
        self._to_end.discard(name)

    async def _link(self, name: str, place: Place) -> None:
        if not self._pauses.over(name, asyncio.get_running_loop().time()):
            return
        try:
            host = await self._host(name, place)
        except Exception as error:  # noqa: BLE001 - Ray raises whatever it likes; the next look tries again
            log.warning("engine_not_made", actor=name, reason=brief(error))
            return
        if host is None:
            return
        self._links[name] = link = Link(
            *(host, self._send, self._generations),
            engine=name,
            node=place.address,
            service=self._service,
            settings=self._settings,
        )
        link.start()

    async def _host(self, name: str, place: Place) -> ActorHost | None:
        """Return the host of an engine: on a node that leaves there is one, or none is made."""
        namespace = self._config.ray_namespace
        if place.draining:
            return await self._answer(actor.found, name, namespace)
        return await self._answer(made, name, place, namespace, self._worker)


def made(name: str, place: Place, namespace: str, worker: str) -> ActorHost:
    """Make the actor of an engine on its node, or find the one of this name; blocks."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    handle = actor.create(
        name,
        namespace=namespace,
        entry=worker,
        engines=place.engines,
        options={
            "num_gpus": int(place.gpu),
            "resources": {RESOURCE: 1} if place.own_resource else {},
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
        },
    )
    return ActorHost(handle)


def connect(config: Config) -> None:
    """Join the cluster with the token of its file; blocks.

    Raises:
        OSError, RuntimeError: there is no cluster, or it has another token.

    """
    host, _, port = config.ray_address.rpartition(":")
    # Ray itself tries for minutes, and does not say why.
    socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = config.ray_token_file
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(RECONNECT_SECONDS))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # noqa: PLC0415

    output.quiet()
    ray.init(
        address=config.ray_address,
        namespace=config.ray_namespace,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )


def places_of(namespace: str) -> dict[str, Place]:
    """Return the places for engines on nodes that live, by the names of engines.

    Blocks for as long as the head is away.
    """
    import ray  # noqa: PLC0415
    from ray._private.state import state  # noqa: PLC0415

    draining = state.get_draining_nodes()
    found: dict[str, Place] = {}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        name, offers = node["NodeID"], node["Resources"]
        if not node["Alive"]:
            continue
        own = RESOURCE in offers
        engines = int(offers.get(RESOURCE if own else "GPU", 0))
        for number in range(engines):
            found[f"sd/{namespace}/{name}/{number}"] = Place(
                node=name,
                address=node["NodeManagerAddress"],
                own_resource=own,
                gpu=not own or offers.get("GPU", 0) >= 1,
                engines=engines,
                draining=name in draining,
            )
    return found
