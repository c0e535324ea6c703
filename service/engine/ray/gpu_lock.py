"""One engine per GPU: a lock file that its process holds, and the kernel frees at its end."""

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from service.config.table import Config
from service.core.stage import Stage
from service.engine.process.child import WorkerMain
from service.engine.process.worker import EngineChannel
from service.engine.protocol import EngineFailed, Shutdown, StageStarted
from service.engine.ray.lease import Lease, LeasedChannel, end_with
from service.errors import ModelError
from service.system import niceness
from service.telemetry import logs

log = structlog.get_logger(__name__)

LOCKS: Final = Path("/run/lock")
POLL_SECONDS: Final = 1.0


def lock_file(gpu: str) -> Path:
    """Return the lock file of a GPU, the same for all processes of this machine."""
    folder = LOCKS if os.access(LOCKS, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"sd-{gpu.replace('/', '-')}.lock"


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """What the child of a host runs: ``entry``, with a GPU of its own, under a lease.

    An engine that was taken for dead may live on in a kernel that hangs. The next one waits until
    it has ended, and says that it lives meanwhile. A host that hangs does not end its engine, which
    therefore looks at the lease itself.
    """

    entry: WorkerMain
    gpu: str
    """By UUID or index; empty where nothing is to be locked."""
    lease: Lease
    """Of its host."""

    def __call__(self, channel: EngineChannel, config: Config) -> None:
        """Take the lock, then run ``entry`` until it ends, or the lease does."""
        niceness.reset()
        logs.configure(config)
        end_with(self.lease)
        channel = LeasedChannel(channel.pipe, self.lease)
        if not self.gpu:
            self.entry(channel, config)
            return
        lock = lock_file(self.gpu)
        try:
            # Nobody else's file, and no link to one: the folder is everybody's.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            held = os.open(lock, flags, 0o600)
        except OSError as error:
            detail = f"The lock file of the GPU cannot be opened ({error}). Remove {lock}."
            channel.send(EngineFailed(code=ModelError.code, detail=detail))
            return
        # It is held until the process has ended, whatever else of it ends before.
        if _taken(held, channel, lock):
            self.entry(channel, config)


def _taken(held: int, channel: EngineChannel, lock: Path) -> bool:
    """Wait for the lock; return False when the engine is to end before it has it."""
    told = False
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                log.warning("gpu_locked", path=str(lock), consequence="waits until it is free")
                told = True
        else:
            return True
        try:
            channel.send(StageStarted(stage=Stage.LOAD))
            if channel.poll(POLL_SECONDS) and isinstance(channel.receive(), Shutdown):
                return False
        except (EOFError, OSError):  # The host is gone.
            return False
