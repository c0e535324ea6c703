"""Memory that runs out, at each stage, with and without a way out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from scripts.drill.scene import Scene, fault

AGAIN_SECONDS: Final = 3.0


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
    """Let a batch run out, and its pictures go on one by one."""

    async def again() -> None:
        while True:  # Until it meets a batch, not a picture that is alone for the moment.
            scene.service.fail(oom={"denoise": 1})
            await asyncio.sleep(AGAIN_SECONDS)

    async with scene.traffic.clients(2, num_images=2):
        task = asyncio.create_task(again())
        try:
            yield
        finally:
            task.cancel()
            scene.service.fail()


@fault("SDOutOfMemory", "Out of memory in text_encode, twice", stage="text_encode")
def oom_text_encode(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let both tries of a prompt run out."""
    return _out_of_memory(scene, text_encode=2)


@fault("SDOutOfMemory", "Out of memory in denoise, twice", stage="denoise")
def oom_denoise(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let both tries of a step run out."""
    return _out_of_memory(scene, denoise=2)


@fault("SDOutOfMemory", "Out of memory in vae_decode, twice", stage="vae_decode")
def oom_vae_decode(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let both tries of a decoding run out."""
    return _out_of_memory(scene, vae_decode=2)


@fault("SDOutOfMemoryRepeated", "Out of memory again and again", silences=("SDOutOfMemory",))
def oom_repeated(scene: Scene) -> AbstractAsyncContextManager[None]:
    """Let every request run out."""
    return _out_of_memory(scene, text_encode=1000)
