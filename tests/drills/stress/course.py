"""The course of the test: rounds of work, and a rest behind each to measure in."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.drills.common.drill import Given
from tests.drills.common.orders import shuffled
from tests.drills.common.report import KIB, MIB, SETTINGS
from tests.drills.stress.meter import GPU_MEMORY, Sample, by, bytes_of, held
from tests.drills.stress.outcome import Outcome
from tests.drills.stress.polite import POLITE, Act, orders
from tests.drills.stress.rude import Rudeness
from tests.drills.stress.verdict import judge, leaks
from tests.support.load_client import FAILURES, WrongAnswerError, background, client_of, every
from tests.support.service_process import ServiceProcess, service_in
from tests.support.wait import TooLateError, until

SAMPLE_SECONDS: Final = 1.0
REST_SECONDS: Final = 60.0
"""After the clients have gone; what is still in work then is never going to end."""

QUIET_SECONDS: Final = 1.25
"""How long nothing must be in work: a job that nobody waits for may be about to be queued, and
the engine tidies up after a second."""

STEADY, HANG_UP = "steady", "hang-up"
AS_USERS_DO: Final = {
    **SETTINGS,
    "ALLOW_DEBUGGER": "true",  # Its memory is read from /proc, not always as root.
    "MAX_EVENT_STREAMS_PER_KEY": "64",  # All clients come from one address.
    "MAX_CONCURRENT_REQUESTS": "3",
    "QUEUE_SIZE": "64",
    "REQUEST_TIMEOUT_SECONDS": "300",
    "ENGINE_STALL_SECONDS": "600",
    # Short lives and little room, so that forgetting is a part of the test.
    "RESULTS_MAX_AGE_SECONDS": "120",
    "RESULTS_MAX_BYTES": str(16 * MIB),
    "BODY_TIMEOUT_SECONDS": "5",
    "HEADER_TIMEOUT_SECONDS": "5",
}
IN_WORK: Final = {
    "jobs waiting": "sd_queue_depth",
    "jobs running": "sd_jobs_running",
    # The question is one of them; waiters and event streams are the others.
    "requests in flight": "sd_http_requests_in_flight",
}
Actions = Iterator[tuple[str, Act, bool]]


class Course:
    """What is done to one service, phase after phase, and what came of it."""

    def __init__(self, given: Given, service: ServiceProcess, engine_pid: int) -> None:
        self.samples: list[Sample] = []
        self.done: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []
        self._given = given
        self._service = service
        self._pids = service.pid, engine_pid
        self._orders = orders(given.seed, given.sizes, given.steps)
        self._began = time.monotonic()
        self._generations = 0
        self._phase = ""

    async def phase(self, name: str) -> None:
        """Make so many generations in rounds, and rest after each."""
        self._phase = name
        rude = Rudeness(self._service.url, self._given.seed) if name == HANG_UP else None
        actions = self._actions(rude)
        await self._rest()
        generations = self._given.generations
        rounds = min(self._given.rounds, generations)
        for number in range(rounds):
            if time.monotonic() > self._began + self._given.minutes * 60:
                self.problems.append("time ran out before all generations were made")
                return
            share = generations * (number + 1) // rounds - generations * number // rounds
            await self._round(actions, share)
            if rude is not None:
                await rude.round_over()
            await self._rest()

    def _actions(self, rude: Rudeness | None) -> Actions:
        """Yield what to do next, and whether it is a generation."""
        polite, *others = (
            shuffled(acts.items(), random.Random(self._given.seed))
            for acts in (POLITE, *((rude.ordering, rude.idle) if rude else ()))
        )
        if not others:
            yield from ((*each, True) for each in polite)
        ordering, idle = others
        while True:
            yield *next(polite), True
            yield *next(ordering), True
            yield *next(idle), False
            yield *next(ordering), True

    async def _round(self, actions: Actions, left: int) -> None:
        async def one() -> None:
            nonlocal left
            while left > 0:
                name, act, counts = next(actions)
                left -= counts
                try:
                    await act(client, next(self._orders))
                except (WrongAnswerError, *FAILURES) as e:
                    self.problems.append(f"{self._phase}, {name}: {type(e).__name__}: {e}")
                self.done[self._phase, name] += 1
                self._generations += counts

        watch = every(SAMPLE_SECONDS, lambda: self._sample(resting=False))
        # A client of its own per round: at rest no connection is left.
        async with client_of(self._service.url) as client, background(watch):
            await asyncio.gather(*(one() for _ in range(self._given.clients)))

    async def _rest(self) -> None:
        """Wait until nothing is in work, and measure."""

        async def quiet() -> bool:
            if await self._in_work():
                return False
            await asyncio.sleep(QUIET_SECONDS)
            return not await self._in_work()

        try:
            await until(quiet, REST_SECONDS, "rest")
        except TooLateError:
            self.problems.append(f"{self._phase}: left in work: {await self._in_work()}")
        sample = await self._sample(resting=True)
        service, engine = sample.service.anonymous / MIB, sample.engine.anonymous / MIB
        print(
            f"{sample.seconds:6.0f} s  {sample.phase:8}{sample.generations:6}  "
            f"engine {engine:7.1f} MiB  service {service:6.1f} MiB  problems {len(self.problems)}",
            flush=True,
        )

    async def _in_work(self) -> dict[str, float]:
        """Return what the service says it is still doing, by its metrics and its job store."""
        found = {name: await self._service.figure(of) or 0.0 for name, of in IN_WORK.items()}
        found["requests in flight"] -= 1
        async with client_of(self._service.url) as client:
            for state in ("queued", "running"):
                found[f"jobs {state} on the disk"] = len(await client.listed(state=state))
        return {name: count for name, count in found.items() if count}

    async def _sample(self, *, resting: bool) -> Sample:
        """Measure once; GPU memory comes from the service, so at rest only.

        Raises:
            TooLateError: one of the processes has ended.

        """
        vram = by(await self._service.figures(), GPU_MEMORY, "kind") if resting else {}
        try:
            service, engine = await asyncio.to_thread(lambda: [held(pid) for pid in self._pids])
        except OSError as error:
            raise TooLateError(f"service or engine ended:\n{self._service.tail()}") from error
        data = self._service.folder / "data"
        sample = Sample(
            seconds=round(time.monotonic() - self._began, 3),
            generations=self._generations,
            phase=self._phase,
            resting=resting,
            service=service,
            engine=engine,
            vram=vram,
            store_bytes=bytes_of(data, "jobs.sqlite*"),
            results_bytes=bytes_of(data / "results", "*"),
        )
        self.samples.append(sample)
        return sample


async def stress(given: Given, folder: Path) -> Outcome:
    """Run the phases that are asked for, and judge them."""
    async with service_in(folder, **{**AS_USERS_DO, "TORCH_THREADS": given.threads}) as service:
        await service.start()
        engine = await service.engine()
        course = Course(given, service, engine.pid)
        phases = [STEADY] * (not given.hang_up) + [HANG_UP] * (given.hang_up is not False)
        for phase in phases:
            await course.phase(phase)
        if not engine.is_running():
            course.problems.append("the engine was started again")
        figures = await service.figures()
    outcome = Outcome(
        samples=course.samples,
        problems=course.problems,
        done=course.done,
        ends=by(figures, "sd_jobs_total", "outcome"),
        wasted=by(figures, "sd_gpu_seconds_total", "use"),
    )
    for phase in phases:
        try:
            outcome.judged += judge(outcome.rests(phase), given.limit * KIB)
        except ValueError as error:
            outcome.problems.append(f"{phase}: {error}")
        outcome.problems += leaks(outcome.rests(phase))
    if restarts := sum(by(figures, "sd_engine_restarts_total", "reason").values()):
        outcome.problems.append(f"the engine was started again {restarts:.0f} times")
    return outcome
