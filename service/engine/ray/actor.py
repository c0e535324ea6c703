"""The actor around a host: what Ray starts on a machine with a GPU, in a process of its own.

``ActorHost`` is the driver's end of it.
"""

import asyncio
import contextlib
import os
import pkgutil
import sys
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, Final

import pynvml
import structlog

from service.engine.ray.gpu_lock import Hosted
from service.engine.ray.host import EngineHost
from service.engine.ray.lease import ABANDONED_SECONDS, Lease
from service.engine.ray.link import HostGoneError, HostSilentError
from service.engine.ray.messages import read_settings
from service.gpu import nvml
from service.system import niceness, parent_death
from service.system.executors import Executor
from service.system.fair_line import Limits
from service.telemetry import logs

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 5.0
"""Between two looks at whether anybody comes back."""

ANSWER_SECONDS: Final = 0.2
"""Until a process ends that was told to leave: its answer is on its way."""

LEAVE_SECONDS: Final = 3.0
"""How long an actor may take to end its engine; the service waits a little longer."""

AHEAD: Final = 8
"""Batches of events that a host may send before they are read."""

# Their threads are daemons: a call that never returns does not keep the process.
CALLS: Final = Executor("ray", Limits(most=4, each=4, alike=4))


class EngineActor(EngineHost):
    """A host whose calls take and return nothing but bytes, texts and numbers.

    ``entry`` is ``module:name`` of what the child runs; ``engines`` share the machine.
    """

    def __init__(self, name: str, entry: str, engines: int) -> None:
        parent_death.follow()  # Ray leaves actors alive when the raylet, their parent, ends.
        niceness.reset()  # Ray starts them at 15.
        # It is Ray's, of actors that ask for no CPU: TORCH_THREADS is the engine's.
        os.environ.pop("OMP_NUM_THREADS", None)
        # A spawned child would run Ray's worker again, up to where it looks for its name.
        vars(sys.modules["__main__"]).pop("__file__", None)
        gpu = gpu_uuid(assigned_gpu())
        lease = Lease()
        hosted = Hosted(entry=pkgutil.resolve_name(entry), gpu=gpu, lease=lease)
        super().__init__(name, gpu=gpu, engines=engines, entry=hosted, lease=lease)
        threading.Thread(target=self._leave_when_abandoned, name="abandoned", daemon=True).start()

    async def attach(self, service: str, generation: int, settings: bytes) -> bytes:
        """Write the log as these settings say, and attach."""
        logs.configure(read_settings(settings))
        return await super().attach(service, generation, settings)

    async def leave(self) -> bool:
        """End the engine at once, and this process after the answer.

        ``ray.kill`` asks the head, which may be away.
        """
        await self.stop()
        asyncio.get_running_loop().call_later(ANSWER_SECONDS, os._exit, 0)
        return True

    def _leave_when_abandoned(self) -> None:
        """End the process when nobody has come back for long; runs on a thread."""
        while self.lease.age < ABANDONED_SECONDS:
            time.sleep(LOOK_SECONDS)
        log.warning("host_abandoned", engine=self.name, seconds=ABANDONED_SECONDS)
        os._exit(0)  # Ray has a way for calls only.


def create(
    name: str, *, namespace: str, entry: str, options: Mapping[str, Any], engines: int = 1
) -> Any:
    """Return the actor of this name, which is made unless it is there; blocks.

    It outlives its driver. Ray starts it once; when it has ended, another one is made.
    """
    import ray  # noqa: PLC0415 - whoever imports this module need not have it

    made = ray.remote(EngineActor).options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=0,
        max_task_retries=0,
        num_cpus=0,
        **options,
    )
    return made.remote(name, entry, engines)


def assigned_gpu() -> str:
    """Return the index or UUID of the GPU that Ray has given to this actor; empty for none."""
    import ray  # noqa: PLC0415 - as above

    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return str(given[0]) if given else ""


def gpu_uuid(name: str) -> str:
    """Return the UUID of a GPU, or the name that it has where NVML does not tell."""
    try:
        with nvml.driver():
            reading = nvml.read(name)
    except pynvml.NVMLError:
        return name
    return reading.uuid if reading else name


def found(name: str, namespace: str) -> "ActorHost | None":
    """Return the host of this name, or None if the cluster has no such host; blocks."""
    import ray  # noqa: PLC0415 - as above

    try:
        return ActorHost(ray.get_actor(name, namespace=namespace))
    except ValueError:
        return None


class ActorHost:
    """A host behind an actor of Ray."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def call(self, method: str, *arguments: Any, seconds: float) -> Any:
        """Return what a method answers, within some seconds."""
        future = asyncio.wrap_future(getattr(self._handle, method).remote(*arguments).future())
        # It is left alone when nobody waits any more: Ray sets it from a thread of its own.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({future}, timeout=seconds)
        if not future.done():
            raise HostSilentError(f"no answer to {method} for {seconds:g} s")
        with translated():
            return future.result()

    async def events(self, generation: int) -> AsyncGenerator[bytes, None]:
        """Yield batches of events, until another attachment begins."""
        import ray  # noqa: PLC0415

        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": AHEAD}
        stream = self._handle.events.options(**options).remote(generation)
        try:
            with translated():
                async for reference in stream:
                    yield await reference
        finally:  # A stream that is only dropped goes on at its other end.
            CALLS.submit("", "", partial(ray.cancel, stream))

    async def kill(self) -> None:
        """End the actor, and its child with it; one that does not answer is ended by Ray."""
        import ray  # noqa: PLC0415

        with contextlib.suppress(HostSilentError):
            await self.call("leave", seconds=LEAVE_SECONDS)
        with translated():
            await CALLS.run(ray.kill, self._handle)


@contextlib.contextmanager
def translated() -> Any:
    """Turn Ray's errors into those of a host."""
    from ray import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.ActorDiedError as error:
        raise HostGoneError(brief(error)) from error
    except exceptions.RayError as error:
        raise HostSilentError(brief(error)) from error


def brief(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
