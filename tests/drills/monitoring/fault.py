"""What a fault is, and the kinds of which there are several."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.drills.monitoring.scene import Scene
from tests.support.monitoring.stack import Expected

Commit = Callable[[Scene], AsyncIterator[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong: done on entering ``commit``, undone on leaving it."""

    name: str
    title: str
    commit: Callable[[Scene], AbstractAsyncContextManager[None]]
    expected: Expected
    silences: frozenset[str]  # Symptoms that Alertmanager holds back while the alert fires.


ALL: Final[list[Fault]] = []  # In the order in which they are entered: the gentle ones first.
EXCUSED: Final = {
    "SDAdaptersThrashing": "a drill has no adapters; their memory is tested with tiny models",
    "SDModelsThrashing": "a drill has one model; switches are tested with the simulated engine",
    "SDEnginesUnbalanced": "the engines of a drill are alike, and all that waits fits each of them",
    **dict.fromkeys(
        (
            *("SDClusterDriverDown", "SDClusterHeadAway"),
            *("SDClusterEnginesMissing", "SDClusterLeasesLate"),
        ),
        "a drill has no cluster",
    ),
    "SDThreadsBusy": "a drill has one key, which gets a part of the threads and never all",
    "SDComputesOnCpu": "no GPU is taken away here: the engine of a drill computes on the CPU",
    "SDLogLinesDropped": "the drill reads the log all the time, to see what happens",
    "SDKeptDataDamaged": "a drill spoils no file behind the back of the service",
    "SDMonitoringBroken": "without Alertmanager or its receiver nothing can be seen to arrive",
}
"""Alerts that no fault of a drill can raise, and why; their cases in alerts/tests stand alone."""


def fault(
    alert: str, title: str, name: str = "", *, silences: tuple[str, ...] = (), **labels: str
) -> Callable[[Commit], Commit]:
    """Enter a fault into the list, by the name of the function that makes it."""

    def enter(commit: Commit) -> Commit:
        entry = Fault(
            name=name or commit.__name__,
            title=title,
            commit=asynccontextmanager(commit),
            expected=Expected(alert=alert, labels=labels),
            silences=frozenset(silences),
        )
        ALL.append(entry)
        return commit

    return enter


def engine(clients: int = 0, fields: Mapping[str, Any] | None = None, **faults: Any) -> Commit:
    """Return a fault: the engine commits these while so many more clients ask for images."""

    async def commit(scene: Scene) -> AsyncIterator[None]:
        scene.fail(**faults)
        async with scene.traffic.clients(clients, **(fields or {})):
            try:
                yield
            finally:
                scene.fail()

    return commit


def driver(**figures: object) -> Commit:
    """Return a fault: the GPU's driver tells these figures."""

    async def commit(scene: Scene) -> AsyncIterator[None]:
        scene.card.set(**figures)
        try:
            yield
        finally:
            scene.card.set(**dict.fromkeys(figures))

    return commit
