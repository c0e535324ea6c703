"""The course of a benchmark: warm-up, then every point, the servers in turns."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from PIL import Image, ImageChops, ImageStat

from scripts.benchmark.client import Answer
from scripts.benchmark.load import Load, Measured
from scripts.benchmark.rows import BenchmarkError, Mixed, Point, Row, Steady
from scripts.benchmark.servers import CURE, Server

WARM_STEPS: Final = 2
SAME: Final = 2.0
"""Mean difference, in levels of 255, up to which two pictures are the same but for rounding."""

WARMING: Final = "warm-up"


@dataclass(kw_only=True)
class Outcome:
    """Everything that was measured."""

    servers: tuple[str, ...]
    rounds: int
    turns: dict[Point, dict[str, list[Measured]]] = field(default_factory=dict)
    """Of each point, by server, a turn for each round."""
    differences: dict[str, float] = field(default_factory=dict)
    """By server: how far its warm-up pictures are from the service's, in levels of 255."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is done with the servers."""

    servers: Sequence[Server]
    points: Sequence[Point]
    requests: int
    rounds: int
    seconds: float
    show: Callable[[str, int], None]
    """Called with what is done and how much work (pixels times steps) was done of it."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows that are asked for, in their order."""
        found: list[Row] = []
        for point in self.points:
            found += [point.row] if isinstance(point, Steady) else [point.short, point.long]
        return tuple(dict.fromkeys(found))

    @property
    def work(self) -> int:
        """Pixels times steps of everything: what a progress bar goes to.

        How many long requests there are beside the short ones is only known afterwards: they
        count as one for each client and each short one.
        """
        warm = sum(row.work + self._crowd * row.work // row.steps * WARM_STEPS for row in self.rows)
        points = sum(map(self._work, self.points))
        return len(self.servers) * (warm + points)

    async def run(self) -> Outcome:
        """Do it.

        Raises:
            BenchmarkError: a server does not make the pictures, or not the service's.

        """
        outcome = Outcome(servers=tuple(server.name for server in self.servers), rounds=self.rounds)
        alone = await self._warm_up(outcome)
        for point in self.points:
            turns = outcome.turns[point] = {server.name: [] for server in self.servers}
            rounds, requests = self._plan(point)
            for number in range(rounds):
                for server in self._order(number):
                    with server.turn():
                        measured = await self._turn(server, point, requests, alone)
                    turns[server.name].append(measured)
        return outcome

    def _order(self, number: int) -> Sequence[Server]:
        """Let another server begin in each round."""
        first = number % len(self.servers)
        return [*self.servers[first:], *self.servers[:first]]

    async def _turn(
        self, server: Server, point: Point, requests: int, alone: Mapping[Row, float]
    ) -> Measured:
        def done(answer: Answer) -> None:
            self.show(f"{point.name}, {server.name}", answer.row.work)

        self.show(f"{point.name}, {server.name}", 0)
        load = Load(server.client, done, self.seconds)
        if isinstance(point, Mixed):
            return await load.mixed(point, requests, alone[point.long])
        return await load.steady(point, requests)

    def _plan(self, point: Point) -> tuple[int, int]:
        """Return the rounds of a point and the requests of a turn.

        One client alone changes the server after every picture, so that what disturbs the
        machine for seconds disturbs all. A crowd needs some time: two pictures for each.
        """
        if point.clients == 1:
            return self.rounds * self.requests, 1
        each = max(2, -(-self.requests // point.clients))
        return self.rounds, each * point.clients

    def _work(self, point: Point) -> int:
        rounds, requests = self._plan(point)
        if isinstance(point, Steady):
            return rounds * requests * point.row.work
        return rounds * requests * (point.short.work + point.long.work)

    @property
    def _crowd(self) -> int:
        return max(point.clients for point in self.points)

    async def _warm_up(self, outcome: Outcome) -> dict[Row, float]:
        """Make each row's picture once on each server, and some steps of a whole crowd.

        Returns the seconds of the first server's pictures.
        """
        alone: dict[Row, float] = {}
        for row in self.rows:
            first: bytes | None = None
            for server in self.servers:
                with server.turn():
                    self.show(f"{WARMING}, {row.name}, {server.name}", 0)
                    content, seconds = await self._picture(server, row)
                    self.show(f"{WARMING}, {row.name}, {server.name}", row.work)
                    await self._shapes(server, row)
                if first is None:
                    first, alone[row] = content, seconds
                else:
                    apart = difference(first, content)
                    outcome.differences[server.name] = max(
                        apart, outcome.differences.get(server.name, 0.0)
                    )
                    if apart > SAME:
                        raise BenchmarkError(
                            f"{server.name} draws another picture of {row.name} than the service "
                            f"({apart:.1f} levels of 255 apart): they do not do the same work"
                        )
        return alone

    async def _picture(self, server: Server, row: Row) -> tuple[bytes, float]:
        started = time.perf_counter()
        answer, content = await server.client.ask(row, 1, started + self.seconds)
        if answer.fault:
            cure = f" {CURE}" if answer.fault.startswith("401") else ""
            raise BenchmarkError(
                f"{server.name} at {server.url} answers {row.name} with {answer.fault}: "
                f"{' '.join(answer.detail.split())}{cure}"
            )
        return content, answer.seconds

    async def _shapes(self, server: Server, row: Row) -> None:
        """Let batches of this size be made, as GPUs choose kernels by shape."""
        few = Row(width=row.width, height=row.height, steps=min(WARM_STEPS, row.steps))
        show = self._shown(server, row)
        load = Load(server.client, show, self.seconds)
        await load.steady(Steady(row=few, clients=self._crowd), self._crowd)
        server.client.refusals.clear()

    def _shown(self, server: Server, row: Row) -> Callable[[Answer], None]:
        return lambda answer: self.show(f"{WARMING}, {row.name}, {server.name}", answer.row.work)


def difference(ours: bytes, theirs: bytes) -> float:
    """Return how far two pictures are apart on average, in levels of 255."""
    with Image.open(io.BytesIO(ours)) as one, Image.open(io.BytesIO(theirs)) as other:
        apart = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    means: list[float] = ImageStat.Stat(apart).mean
    return sum(means) / len(means)
