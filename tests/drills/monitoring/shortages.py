"""Faults of memory: stages that run out of it, and an engine that has little left."""

import resource
from collections.abc import AsyncIterator
from typing import Final

from service.core.stage import OomRung, Stage
from tests.drills.common.report import MIB
from tests.drills.monitoring.fault import Commit, engine, fault
from tests.drills.monitoring.scene import Scene
from tests.support.images.files import base64_of, png
from tests.support.wait import until

ROOM: Final = 64 * MIB  # With what its heap has free, plenty for the images of a drill.
LITTLE: Final = 768 * MIB  # Too little for the largest image.
LARGE: Final = {"width": 4096, "height": 4096, "steps": 1}
NOTICED_SECONDS: Final = 60.0
RECOVERED, OOM = "SDOutOfMemoryRecovered", "SDOutOfMemory"
DECODE, ENCODE = Stage.VAE_DECODE.value, Stage.VAE_ENCODE.value
FREE, TILED = OomRung.FREE_CACHE.value, OomRung.VAE_TILING.value
SIDE: Final = 256  # An image of half of it is too small to be encoded in tiles.
REDRAWN: Final = {"image": base64_of(png((SIDE, SIDE))), "width": SIDE, "height": SIDE}


def short(stage: str, calls: int) -> Commit:
    """Return a fault: so many calls of a stage run out of memory, which somebody asks for."""
    redrawing = (1, REDRAWN) if stage == ENCODE else ()
    return engine(*redrawing, oom={stage: calls})


for _name, _title, _calls, _stage, _rung in (
    ("oom_recovered", "once", 1, DECODE, FREE),
    ("oom_encode_recovered", "once", 1, ENCODE, FREE),
    ("oom_tiled", "with a free cache too", 2, DECODE, TILED),
    ("oom_encode_tiled", "with a free cache too", 2, ENCODE, TILED),
):
    _fault = fault(
        RECOVERED, f"Out of memory in {_stage}, {_title}", _name, stage=_stage, rung=_rung
    )
    _fault(short(_stage, _calls))
# Its images go on in smaller batches.
fault(RECOVERED, "Out of memory in a batch", "oom_split", stage="denoise", rung="split_batch")(
    engine(2, {"num_images": 2}, oom={"denoise": 2}, oom_images=2)
)
for _name, _title, _calls, _stage in (
    ("oom_text_encode", "twice", 2, "text_encode"),
    # As a batch of two and alone, or of two images that are alone.
    ("oom_denoise", "also when alone", 4, "denoise"),
    ("oom_vae_decode", "also in tiles", 3, DECODE),
    ("oom_vae_encode", "also in tiles", 3, ENCODE),
):
    fault(OOM, f"Out of memory in {_stage}, {_title}", _name, stage=_stage)(short(_stage, _calls))
fault("SDOutOfMemoryRepeated", "Out of memory again and again", "oom_repeated", silences=(OOM,))(
    engine(oom={"text_encode": 1000})
)


@fault("SDPicturesDoNotFit", "Little memory left to the engine (RLIMIT_AS)")
async def memory_taken(scene: Scene) -> AsyncIterator[None]:
    """Limit the engine's address space, and ask for an image that is too large for it."""
    process = await scene.service.engine()
    limit = process.memory_info().vms + ROOM
    process.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    async def noticed() -> bool:
        left = await scene.service.figure("sd_memory_available_bytes")
        return left is not None and left <= LITTLE

    try:
        async with scene.traffic.clients(1):  # The engine looks at its memory while it works.
            await until(noticed, NOTICED_SECONDS, "the engine's look at its memory")
        async with scene.traffic.clients(1, **LARGE):
            yield
    finally:
        process.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
