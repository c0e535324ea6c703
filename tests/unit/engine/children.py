"""Engine children without torch: each is what one broken or healthy engine would do."""

import contextlib
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from service.config import Config
from service.diffusion.generation import JobCancelled, JobFinished, ModelInfo
from service.engine.messages import (
    Cancel,
    Command,
    EngineFailed,
    EngineReady,
    Event,
    Generate,
    Shutdown,
)

MODEL = ModelInfo(
    model_id="none",
    version="none-1",
    family="sd",
    demo=False,
    device="cpu",
    gpu=False,
    dtype="float32",
    load_seconds=0.0,
)


def obedient(connection: "Connection[Event, Command]", _config: Config) -> None:
    """Finish every job at once; a prompt that names a way to die is obeyed."""
    connection.send(EngineReady(model=MODEL))
    with contextlib.suppress(EOFError, OSError):  # The service is gone.
        while True:
            match connection.recv():
                case Generate(job_id=job_id, request=request):
                    if request.prompt == "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if request.prompt == "exits":
                        os._exit(3)
                    connection.send(JobFinished(job_id=job_id, pictures=()))
                case Cancel(job_id=job_id):
                    connection.send(JobCancelled(job_id=job_id))
                case Shutdown():
                    return


def stubborn(connection: "Connection[Event, Command]", _config: Config) -> None:
    """Never read a command: only a kill ends it."""
    connection.send(EngineReady(model=MODEL))
    signal.pause()


def without_model(connection: "Connection[Event, Command]", _config: Config) -> None:
    """Report that the model cannot be loaded, and end."""
    connection.send(EngineFailed(code="model_error", detail="no such folder"))


def short_of_memory_once(connection: "Connection[Event, Command]", config: Config) -> None:
    """Fail to load in the second life, which is counted in a file; else be obedient."""
    lives = Path(os.environ["CHILD_LIVES"])
    lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
    if lives.read_text() == "xx":
        connection.send(EngineFailed(code="model_error", detail="no memory left"))
        return
    obedient(connection, config)
