"""All that a fault can reach, and what one is."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alerts.windows import Windows
from scripts.drill.service import Service
from scripts.drill.traffic import Traffic

if TYPE_CHECKING:
    from scripts.drill.stack import Stack
    from tests.nvml.driver import Driver


class SkippedError(Exception):
    """A fault cannot be made here; says why."""


@dataclass
class Clock:
    """When the fault of the moment began; one that needs preparations restarts it after them."""

    begun: float = 0.0

    def restart(self) -> None:
        """Begin now."""
        self.begun = time.time()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The service and everything around it that can fail."""

    service: Service
    stack: "Stack"
    traffic: Traffic
    step_seconds: float
    """One denoising step of two small pictures, on this machine now."""
    windows: Windows
    """Those of the rules that run."""
    driver: "Driver | None"
    """The stand-in for the GPU's driver, or None where no compiler is."""
    disk: Path | None
    """A small file system of its own with the models' folder, or None."""
    clock: Clock = field(default_factory=Clock)

    @property
    def card(self) -> "Driver":
        """The GPU's driver.

        Raises:
            SkippedError: there is no compiler to build it with.

        """
        if self.driver is None:
            raise SkippedError("no C compiler to build the GPU driver's stand-in with")
        return self.driver


@dataclass(frozen=True, kw_only=True)
class Expected:
    """An alert that shall fire, be delivered and end; by name and, where it counts, labels."""

    alert: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these are the labels of such an alert."""
        wanted = {"alertname": self.alert, **self.labels}
        return wanted.items() <= dict(labels).items()

    def __str__(self) -> str:
        """Return it in short, for the table."""
        return self.alert + "".join(f" {value}" for value in self.labels.values())


Commit = Callable[[Scene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong: done on entering ``commit``, undone on leaving it."""

    name: str
    title: str
    commit: Commit
    expected: Expected
    silences: frozenset[str]
    """Symptoms that Alertmanager holds back while the alert fires."""


FAULTS: Final[list[Fault]] = []
"""All faults that modules have entered; ``catalog`` puts them in order."""


def fault(
    alert: str, title: str, *, silences: tuple[str, ...] = (), **labels: str
) -> Callable[[Commit], Commit]:
    """Enter a fault into the list, by the name of the function that makes it."""

    def enter(commit: Commit) -> Commit:
        FAULTS.append(
            Fault(
                name=commit.__name__,
                title=title,
                commit=commit,
                expected=Expected(alert=alert, labels=labels),
                silences=frozenset(silences),
            )
        )
        return commit

    return enter
