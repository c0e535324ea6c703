"""Whose job is next: keys in turns by the GPU time they take, inside a key the short ones first."""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from service.core.work import work
from service.jobs.job import Job

QUANTUM = 512 * 512
"""Pixel steps that a key of weight 1 may spend more in each round: one step of 512x512."""

AGEING = 16
"""How much work of its own key a job lets overtake it, in multiples of its own work."""

Ranked = tuple[int, int, int, Job]
"""Rank inside the key, number of arrival, work, job."""

Turn = tuple[int, int, int]
"""Round, number of the lane, place in the lane: who has the least is next."""


@dataclass(kw_only=True, eq=False)
class Lane:
    """The waiting jobs of one key, the next one first, and what the key has spent."""

    number: int
    """Place among the lanes: the order in which they came."""
    allowance: int
    """Pixel steps a round."""
    joined: int
    """The round before its first one."""
    spent: int = 0
    """Pixel steps handed out since it joined, less those given back."""
    clock: int = 0
    """Pixel steps handed out since it joined: what waiting is measured with."""
    entries: list[Ranked] = field(default_factory=list)
    next_turn: int = 0
    """The round of its first job."""

    def turn(self, cost: int) -> int:
        """Return the first round whose allowance pays for ``cost`` on top of what was spent."""
        return self.joined + math.ceil((self.spent + cost) / self.allowance)


class Lanes:
    """Deficit round-robin over the keys that have jobs waiting.

    Shreedhar and Varghese, Efficient Fair Queueing using Deficit Round Robin (1995): in each
    round every key gets an allowance, a quantum times its weight; what a job's work exceeds
    it is saved up for, and what is saved is forfeited when the key has nothing waiting.
    Here the rounds in which nobody can pay are skipped by arithmetic, so that the quantum
    can be small against a job, and a key may use what it has saved as soon as a shorter job
    comes. Costs are estimates in pixel steps (``work``), to which GPU seconds are
    proportional.

    Inside a key the rank is the key's clock on arrival plus ``AGEING`` times the work: a
    shorter job overtakes, unless it comes after the key was served ``AGEING`` times as much
    as the difference. The clock counts work that was handed out, not seconds, so that the
    order depends on nothing but the requests.

    The lanes stand in two heaps, so that the next job is found in O(log n) of n keys. A lane whose
    turn changes is put in once more; an entry that does not agree with its lane is dropped when it
    comes up.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: dict[str, Lane] = {}
        self._entries: dict[str, Ranked] = {}
        self._due: list[tuple[int, int, Lane]] = []
        """Lanes whose turn has come: number, turn."""
        self._later: list[tuple[int, int, Lane]] = []
        """The others: turn, number."""
        self._round = 1
        self._joined = 0
        self._arrived = 0

    def put(self, job: Job) -> None:
        """Take a job in; a key that had none waiting joins the current round as the last."""
        lane = self._lanes.get(job.owner)
        if lane is None:
            self._joined += 1
            lane = self._lanes[job.owner] = Lane(
                number=self._joined,
                allowance=QUANTUM * self._weights.get(job.owner, 1),
                joined=self._round - 1,
            )
        self._arrived += 1
        cost = work(job.request)
        entry = (lane.clock + AGEING * cost, self._arrived, cost, job)
        self._entries[job.id] = entry
        insort(lane.entries, entry)
        self._line_up(lane)

    def first(self) -> Job:
        """Return the next job.

        Raises:
            IndexError: none waits.

        """
        return self._next()[1].entries[0][3]

    def take(self, job: Job | None = None) -> Job:
        """Hand out the next job, or ``job`` before its turn, on its key's account.

        Raises:
            IndexError: none waits.

        """
        turn, lane = self._next()
        first = lane.entries[0][3]
        if job is None or job is first:
            self._round, job = turn, first
        lane = self._lanes[job.owner]
        cost = self._entries[job.id][2]
        lane.spent += cost
        lane.clock += cost
        self._remove(job)
        return job

    def discard(self, job: Job) -> bool:
        """Take ``job`` out at nobody's cost; return whether it waited."""
        if job.id not in self._entries:
            return False
        self._remove(job)
        return True

    def refund(self, owner: str, unused: int) -> None:
        """Give back pixel steps that an owner has paid for and not used.

        Never more than it has paid since it joined: what was paid before was forfeited.
        """
        if lane := self._lanes.get(owner):
            lane.spent = max(0, lane.spent - unused)
            self._line_up(lane)

    def order(self) -> list[tuple[Turn, Job]]:
        """Return all jobs in the order in which ``take`` would hand them out, as things are."""
        turns: list[tuple[Turn, Job]] = []
        for lane in self._lanes.values():
            total = 0
            for index, (_, _, cost, job) in enumerate(lane.entries):
                total += cost
                turns.append(((max(self._round, lane.turn(total)), lane.number, index), job))
        turns.sort(key=itemgetter(0))
        return turns

    def turn(self, job: Job) -> Turn:
        """Return where ``job`` stands in ``order``, in the time of a sum over its lane alone."""
        lane = self._lanes[job.owner]
        index = bisect_left(lane.entries, self._entries[job.id])
        total = sum(cost for _, _, cost, _ in lane.entries[: index + 1])
        return max(self._round, lane.turn(total)), lane.number, index

    def _next(self) -> tuple[int, Lane]:
        """Return the lane whose turn is next, and its round.

        Raises:
            IndexError: no job waits.

        """
        while self._later and self._later[0][0] <= self._round:
            turn, number, lane = heapq.heappop(self._later)
            if self._stands(lane, turn):
                heapq.heappush(self._due, (number, turn, lane))
        while self._due:
            _, turn, lane = self._due[0]
            if self._stands(lane, turn):
                return self._round, lane
            heapq.heappop(self._due)
        while self._later:
            turn, _, lane = self._later[0]
            if self._stands(lane, turn):
                return turn, lane
            heapq.heappop(self._later)
        raise IndexError("No job waits.")

    def _line_up(self, lane: Lane) -> None:
        """Put a lane where its first job belongs."""
        turn = lane.turn(lane.entries[0][2])
        if turn == lane.next_turn:
            return
        lane.next_turn = turn
        if turn <= self._round:
            heapq.heappush(self._due, (lane.number, turn, lane))
        else:
            heapq.heappush(self._later, (turn, lane.number, lane))

    def _stands(self, lane: Lane, turn: int) -> bool:
        """Return whether a lane still has jobs, and this turn."""
        return lane.next_turn == turn

    def _remove(self, job: Job) -> None:
        lane = self._lanes[job.owner]
        entry = self._entries.pop(job.id)
        del lane.entries[bisect_left(lane.entries, entry)]
        if lane.entries:
            self._line_up(lane)
        else:
            del self._lanes[job.owner]
            lane.next_turn = 0
        if not self._lanes:
            self._round, self._joined = 1, 0
            self._due.clear()
            self._later.clear()
