"""A GPU that is hot, full, faulty or gone, and a disk that fills."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from scripts.drill.scene import Scene, SkippedError, fault

MEMORY: Final = 6 * 2**30
NEARLY: Final = 0.97
XID: Final = 79
"""The GPU has fallen off the bus."""

UNKNOWN_ERROR: Final = 999


@asynccontextmanager
async def _figures(scene: Scene, **figures: object) -> AsyncIterator[None]:
    scene.card.set(**figures)
    try:
        yield
    finally:
        scene.card.set(**dict.fromkeys(figures))


@fault("SDGpuHot", "GPU hot")
def gpu_hot(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Heat the GPU."""
    return _figures(scene, temperature=96)


@fault("SDGpuThrottled", "GPU held back under load", reason="hw_thermal")
def gpu_throttled(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Hold the clocks of a busy GPU down."""
    return _figures(scene, throttle="0x40", utilization=97, clock_sm=600)


@fault("SDVramNearLimit", "GPU memory nearly full")
def gpu_memory_full(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Take nearly all of the GPU's memory."""
    return _figures(scene, memory_used=int(NEARLY * MEMORY))


@fault("SDGpuXid", "Driver reports a fault (XID 79)", xid=str(XID))
@asynccontextmanager
async def gpu_xid(scene: Scene) -> AsyncIterator[None]:
    """Report a fault."""
    scene.card.report_fault(XID)
    yield
    scene.card.set(xids=None)


@fault("SDGpuEccErrors", "GPU memory lost data")
def gpu_ecc(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Count memory errors that could not be corrected."""
    return _figures(scene, ecc_uncorrected=2)


@fault("SDGpuLost", "GPU gone", silences=("SDGpuCollectorBroken",))
def gpu_lost(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Take the GPU away."""
    return _figures(scene, lost=1)


@fault("SDGpuCollectorBroken", "Driver answers with errors")
def gpu_unreadable(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Answer with errors."""
    return _figures(scene, errors=f"memory:{UNKNOWN_ERROR}")


@fault("SDGpuCollectorBroken", "Driver does not answer")
def gpu_driver_hangs(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Answer nothing."""
    return _figures(scene, hang=60)


@fault("SDDiskFilling", "Disk for models full", volume="models")
@asynccontextmanager
async def disk_fills(scene: Scene) -> AsyncIterator[None]:
    """Write until the disk is full."""
    if scene.disk is None:
        raise SkippedError("no file system of our own can be mounted here (needs root)")
    ballast = scene.disk / "ballast"
    try:
        with ballast.open("wb") as file:
            block = bytes(2**16)
            try:
                while file.write(block):
                    pass
            except OSError:
                pass  # Full, as it shall be.
        yield
    finally:
        ballast.unlink()
