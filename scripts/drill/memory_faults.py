"""Memory that runs out, at each stage, with and without a way out."""

import resource
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from scripts.drill.scene import Scene, fault
from scripts.drill.wait import until

ROOM: Final = 64 * 2**20
"""With what its heap has free, plenty for the pictures of a drill."""

LITTLE: Final = 768 * 2**20
"""Too little for the largest picture."""

LARGE: Final = {"width": 4096, "height": 4096, "steps": 1}
NOTICED_SECONDS: Final = 60.0
UNLIMITED: Final = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@asynccontextmanager
async def _out_of_memory(scene: Scene, **stages: int) -> AsyncIterator[None]:
    """Let so many calls of stages run out; the clients who are always there meet them."""
    scene.service.fail(oom=stages)
    try:
        yield
    finally:
        scene.service.fail()


@fault(
    "SDOutOfMemoryRecovered",
    "Out of memory in vae_decode, once",
    stage="vae_decode",
    rung="free_cache",
)
def oom_recovered(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let one decoding run out, and its second try succeed."""
    return _out_of_memory(scene, vae_decode=1)


@fault("SDOutOfMemoryRecovered", "Out of memory in a batch", stage="denoise", rung="split_batch")
@asynccontextmanager
async def oom_split(scene: Scene) -> AsyncIterator[None]:
    """Let a batch run out twice, and its pictures go on in smaller ones."""
    scene.service.fail(oom={"denoise": 2}, oom_pictures=2)
    try:
        async with scene.traffic.clients(2, num_images=2):
            yield
    finally:
        scene.service.fail()


@fault(
    "SDOutOfMemoryRecovered",
    "Out of memory in vae_decode, with a free cache too",
    stage="vae_decode",
    rung="vae_tiling",
)
def oom_tiled(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let a decoding run out twice, and succeed in tiles."""
    return _out_of_memory(scene, vae_decode=2)


@fault("SDOutOfMemory", "Out of memory in text_encode, twice", stage="text_encode")
def oom_text_encode(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let both tries of a prompt run out."""
    return _out_of_memory(scene, text_encode=2)


@fault("SDOutOfMemory", "Out of memory in denoise, also when alone", stage="denoise")
def oom_denoise(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let a step run out, as a batch of two and alone, or of two pictures that are alone."""
    return _out_of_memory(scene, denoise=4)


@fault("SDOutOfMemory", "Out of memory in vae_decode, also in tiles", stage="vae_decode")
def oom_vae_decode(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let all tries of a decoding run out."""
    return _out_of_memory(scene, vae_decode=3)


@fault("SDOutOfMemoryRepeated", "Out of memory again and again", silences=("SDOutOfMemory",))
def oom_repeated(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let every request run out."""
    return _out_of_memory(scene, text_encode=1000)


@fault("SDPicturesDoNotFit", "Little memory left to the engine (RLIMIT_AS)")
@asynccontextmanager
async def memory_taken(scene: Scene) -> AsyncIterator[None]:
    """Limit the engine's address space, and ask for a picture that is too large for it."""
    engine = await scene.service.engine()
    limit = engine.memory_info().vms + ROOM
    engine.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    async def noticed() -> bool:
        left = await scene.service.figure("sd_memory_available_bytes")
        return left is not None and left <= LITTLE

    try:
        async with scene.traffic.clients(1):  # The engine looks at its memory while it works.
            await until(noticed, NOTICED_SECONDS, "the engine's look at its memory")
        async with scene.traffic.clients(1, **LARGE):
            yield
    finally:
        engine.rlimit(resource.RLIMIT_AS, UNLIMITED)
