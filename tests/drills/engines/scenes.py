"""What happens to an engine while clients order images, and how its end is waited for."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.drills.engines.outcome import Strike, first
from tests.support.service_process import ServiceProcess
from tests.support.wait import until

PAUSE_SECONDS: Final = 1.0
"""Shorter than any silence that is taken for death."""

BOUND_SECONDS: Final = 180.0
"""Of every wait; reached only when something is broken."""


@dataclass(frozen=True)
class Scene:
    """Something that is done to one engine after the other."""

    name: str
    folder: str
    strike: Callable[[ServiceProcess, str], Awaitable[Strike]]
    ends: bool = True
    """Whether the engine's process ends by it."""
    load_seconds: float = 0.0
    """How long an engine takes to start."""


async def killed(service: ServiceProcess, slot: str) -> Strike:
    """Kill an engine; wait until another one works in its place."""
    return await _ended(service, slot, signal.SIGKILL)


async def stopped(service: ServiceProcess, slot: str) -> Strike:
    """Stop an engine for good, which only its silence tells."""
    return await _ended(service, slot, signal.SIGSTOP)


async def paused(service: ServiceProcess, slot: str) -> Strike:
    """Stop an engine for so short that it is not given up."""
    strike = Strike(slot=slot, at=time.time())
    pid = engine_pid(service, slot)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSE_SECONDS)
    os.kill(pid, signal.SIGCONT)
    strike.ready = time.time()
    await _works(service, strike)
    return strike


async def kept_dying(service: ServiceProcess, slot: str) -> Strike:
    """Kill an engine each time that it starts until it is taken out; wait until it is back."""
    strike = Strike(slot=slot, at=time.time())
    struck: set[int] = set()

    async def taken_out() -> bool:
        pid = engine_pid(service, slot)
        if pid not in struck:
            struck.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return first(service.log, "circuit_opened", slot, strike.at) is not None

    await until(taken_out, BOUND_SECONDS, "an engine taken out")
    strike.opened = first(service.log, "circuit_opened", slot, strike.at)
    await _logged(service, "circuit_closed", strike)
    strike.ready = first(service.log, "circuit_closed", slot, strike.at)
    await _works(service, strike)
    return strike


async def _ended(service: ServiceProcess, slot: str, number: signal.Signals) -> Strike:
    strike = Strike(slot=slot, at=time.time())
    os.kill(engine_pid(service, slot), number)
    await _logged(service, "engine_exited", strike)
    strike.detected = first(service.log, "engine_exited", slot, strike.at)
    assert strike.detected is not None
    await _logged(service, "model_loaded", strike)
    strike.ready = first(service.log, "model_loaded", slot, strike.detected)
    await _works(service, strike)
    return strike


async def _logged(service: ServiceProcess, event: str, strike: Strike) -> None:
    after = strike.detected or strike.at

    async def logged() -> bool:
        return first(service.log, event, strike.slot, after) is not None

    await until(logged, BOUND_SECONDS, f"{event} of engine {strike.slot}")


async def _works(service: ServiceProcess, strike: Strike) -> None:
    """Wait until the engine has got work again."""
    assert strike.ready is not None

    async def works() -> bool:
        return first(service.log, "job_started", strike.slot, strike.ready or 0.0) is not None

    await until(works, BOUND_SECONDS, f"work of engine {strike.slot}")


def engine_pid(service: ServiceProcess, slot: str) -> int:
    """Return the process id of the latest engine in a slot."""
    return int(service.lines("engine_started", engine=slot)[-1]["pid"])


SCENES: Final = (
    Scene("killed (SIGKILL)", "killed", killed),
    Scene("stopped (SIGSTOP)", "stopped", stopped),
    Scene(f"stopped for {PAUSE_SECONDS:g} s", "paused", paused, ends=False),
    Scene("killed at each start", "kept-dying", kept_dying, load_seconds=1.0),
)
