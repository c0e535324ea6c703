"""The other half of the proof: normal work wakes nobody."""

import asyncio
import time

from scripts.drill.scene import Expected
from scripts.drill.wait import until
from scripts.drill.watch import WATCHDOG
from scripts.drill.world import World

SAY_SECONDS = 60.0
WATCHDOG_SECONDS = 300.0


async def quiet_run(ground: World, seconds: float) -> list[str]:
    """Work normally for so long; return the alerts that fired, but for the one that always does."""
    end = time.time() + seconds

    async def over() -> bool:
        await asyncio.sleep(0)
        return time.time() >= end or bool(ground.watch.names("firing") - {WATCHDOG})

    async def told() -> bool:
        await asyncio.sleep(0)
        return ground.stack.receiver.first(Expected(alert=WATCHDOG), "firing", 0.0) is not None

    await until(told, WATCHDOG_SECONDS, f"{WATCHDOG} delivered")
    await until(over, seconds + SAY_SECONDS, "the end of the quiet run")
    loud = sorted(ground.watch.names("firing") - {WATCHDOG})
    minutes = (time.time() - end + seconds) / 60
    served = ground.scene.traffic.served
    print(f"{minutes:.1f} minutes, {served} pictures; fired: {', '.join(loud) or 'nothing'}")
    pending = sorted(ground.watch.names("pending") - {WATCHDOG})
    print(f"about to fire at some time: {', '.join(pending) or 'nothing'}")
    return loud
