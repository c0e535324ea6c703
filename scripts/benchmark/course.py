"""The course of a benchmark: warm-up, then every point, the servers in turns."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from scripts.benchmark.load import SECONDS, Load, Turn, ask
from scripts.benchmark.rows import BenchmarkError, Point, Row
from scripts.benchmark.servers import CURE, Server
from scripts.cards.images import compared

WARM_STEPS: Final = 2
SAME: Final = 2.0
"""Mean difference, in levels of 255, up to which two images differ by rounding only."""


@dataclass(kw_only=True)
class Outcome:
    """Everything that was measured."""

    servers: tuple[str, ...]
    rounds: int
    turns: dict[Point, dict[str, list[Turn]]] = field(default_factory=dict)
    """Of each point, by server, a turn for each round."""
    differences: dict[str, float] = field(default_factory=dict)
    """By server: how far its warm-up images are from the service's, in levels of 255."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The measurements of a run, on all servers."""

    servers: Sequence[Server]
    points: Sequence[Point]
    requests: int
    rounds: int
    show: Callable[[str], object]
    """Called with each load of a server before it begins, ``most`` times."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows that are asked for, in their order."""
        return tuple(dict.fromkeys(row for point in self.points for row in point.rows))

    @property
    def most(self) -> int:
        """Loads of all servers, for a progress bar."""
        turns = sum(self._plan(point)[0] for point in self.points)
        return len(self.servers) * (len(self.rows) + turns)

    async def run(self) -> Outcome:
        """Warm all servers up, then measure every point.

        Raises:
            BenchmarkError: a server does not make the images, or not the service's.

        """
        outcome = Outcome(servers=tuple(server.name for server in self.servers), rounds=self.rounds)
        alone = {row: await self._warm_up(row, outcome) for row in self.rows}
        for point in self.points:
            turns = outcome.turns[point] = {server.name: [] for server in self.servers}
            rounds, requests = self._plan(point)
            for number in range(rounds):
                first = number % len(self.servers)  # Another server begins in each round.
                for server in (*self.servers[first:], *self.servers[:first]):
                    self.show(f"{point.name}, {server.name}")
                    with server.turn():
                        turn = await Load(server.client).run(point, requests, alone[point.rows[-1]])
                    turns[server.name].append(turn)
        return outcome

    def _plan(self, point: Point) -> tuple[int, int]:
        """Return the rounds of a point and the requests of a turn.

        One client alone changes the server after every image, so that what disturbs the
        machine for seconds disturbs all. A crowd needs some time: two images for each.
        """
        if point.clients == 1:
            return self.rounds * self.requests, 1
        each = max(2, -(-self.requests // point.clients))
        return self.rounds, each * point.clients

    async def _warm_up(self, row: Row, outcome: Outcome) -> float:
        """Make an image once on each server; return the seconds of the first server's."""
        service, *_ = self.servers
        alone, ours = 0.0, b""
        crowd = max(point.clients for point in self.points)
        few = Point(rows=(replace(row, steps=min(WARM_STEPS, row.steps)),), clients=crowd)
        for server in self.servers:
            self.show(f"warm-up, {row.name}, {server.name}")
            with server.turn():
                answer, found = await ask(server.client, row, 1, time.monotonic() + SECONDS)
                if answer.fault:
                    said = found.body.get("detail") or found.error or found.content.decode("latin1")
                    cure = CURE if answer.fault.startswith("401") else ""
                    raise BenchmarkError(
                        f"{server.name} at {server.client.url} answers {row.name} with "
                        f"{answer.fault}: {' '.join(str(said)[:200].split())} {cure}".rstrip()
                    )
                # GPUs choose kernels by shape: batches of this size are made once.
                await Load(server.client).run(few, crowd)
            if server is service:
                alone, ours = answer.seconds, found.content
                continue
            apart = compared([(io.BytesIO(ours), io.BytesIO(found.content))]).mean
            before = outcome.differences.get(server.name, 0.0)
            outcome.differences[server.name] = max(apart, before)
            if apart > SAME:
                raise BenchmarkError(
                    f"{server.name} draws another image of {row.name} than the service "
                    f"({apart:.1f} levels of 255 apart): they do not do the same work"
                )
        return alone
