"""Pools of tiny models, with memory that a test gives."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from service.config.table import Config
from service.diffusion.loop.step_loop import Fault, no_fault
from service.diffusion.pool.background import Background
from service.diffusion.pool.member import Member
from service.diffusion.pool.opener import Opener
from service.diffusion.pool.pool import ModelPool
from service.diffusion.pool.residents import Residents, Said
from service.models.catalog import resolve
from service.models.source import Source

WAIT_SECONDS = 30.0
OTHER_NAME = torch.device("cpu", 0)
"""Another name of the same memory: what is moved there arrives, and shows where it is."""


class Tiny(Opener):
    """Opens tiny models by their kind; ``hold`` keeps them from being read to their end."""

    def __init__(self, folder: Callable[[str], Path], *, gpu: bool = False) -> None:
        super().__init__(Config(max_concurrent_requests=3, min_size=64, default_size=64), no_fault)
        self.opened: list[str] = []
        self.proceed = Event()
        self.proceed.set()
        self.errors: list[Exception] = []
        """What the next openings raise."""
        self.sizes: dict[str, int] = {}
        """Bytes of models, where they are not what their files say."""
        self._folder, self._gpu = folder, gpu

    def needed(self, name: str) -> int:
        return self.sizes.get(name) or super().needed(name)

    def open(self, name: str, begin: Fault, *, place: bool = False) -> Member:
        self.opened.append(name)
        assert self.proceed.wait(WAIT_SECONDS)
        if self.errors:
            raise self.errors.pop(0)
        member = super().open(name, begin, place=place)
        member.size = self.sizes.get(name, member.size)
        if self._gpu:
            member.loop.model = replace(member.loop.model, device=OTHER_NAME)
        return member

    def _find(self, name: str) -> Source:
        path = self._folder(name or "sd")
        return resolve(str(path), path.parent)


class Machine:
    """A pool, and the memory of the machine that it is in."""

    def __init__(self, opener: Tiny, *, host_budget: int, fault: Fault = no_fault) -> None:
        self.opener = opener
        self.now = 0.0
        self.total: int | None = None
        """Bytes of the device for weights; None for no bound."""
        self.background = Background(most_seconds=WAIT_SECONDS, fault=fault)
        first = opener.open("", no_fault)
        self.size = first.size
        self.residents = Residents(
            first,
            self.background,
            host_budget=host_budget,
            host_available=self._available,
            device_available=self._available,
            clock=self._clock,
        )
        self.pool = ModelPool(self.residents, opener, self.background, clock=self._clock)

    def _available(self) -> int | None:
        if self.total is None:
            return None if not self.residents.movable else 2**40
        return self.total - sum(each.size for each in self.residents.members.values())

    def _clock(self) -> float:
        self.now += 0.001
        return self.now

    def until(self, kind: type[Any], *, most: int = 10_000) -> list[Said]:
        """Step until something of a kind was said; return all that was."""
        said: list[Said] = []
        for _ in range(most):
            said += self.pool.step()
            if any(isinstance(each, kind) for each in said):
                return said
        raise AssertionError(f"no {kind.__name__} came: {said}")

    def rest(self) -> list[Said]:
        """Step until nothing is left to do."""
        said: list[Said] = []
        while self.pool.busy:
            said += self.pool.step()
        return said


@pytest.fixture
def machine(folder: Callable[[str], Path]) -> Iterator[Callable[..., Machine]]:
    """Return what makes a machine with the tiny model of SD 1.5's shape as its default."""
    made: list[Machine] = []

    def make(*, gpu: bool = False, host_budget: int = 2**40, fault: Fault = no_fault) -> Machine:
        machine = Machine(Tiny(folder, gpu=gpu), host_budget=host_budget, fault=fault)
        made.append(machine)
        return machine

    yield make
    for each in made:
        each.opener.proceed.set()
