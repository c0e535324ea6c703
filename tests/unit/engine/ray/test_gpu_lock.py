"""One engine per GPU: the lock that its process holds."""

import fcntl
import multiprocessing
import os
import threading

import pytest

from service.config.table import Config
from service.engine.channel import COMMANDS, EVENTS, Channel
from service.engine.protocol import (
    Command,
    EngineEvent,
    EngineFailed,
    EngineReady,
    Shutdown,
    StageStarted,
)
from service.engine.ray import gpu_lock
from service.engine.ray.gpu_lock import Hosted, lock_file
from service.engine.ray.lease import Lease
from tests.unit.engine.process import children
from tests.unit.engine.ray.conftest import Clock

WAIT_SECONDS = 30.0
GPU = "GPU-1"


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Return the path of a lock file, which is not there yet."""
    monkeypatch.setattr(gpu_lock, "LOCKS", tmp_path)
    return lock_file(GPU)


class Running:
    """A hosted engine on a thread, and the service's end of its pipe."""

    def __init__(self, gpu: str = GPU) -> None:
        ours, theirs = multiprocessing.Pipe()
        self.channel: Channel[Command, EngineEvent] = Channel(ours, EVENTS)
        self.lease = Lease(Clock())
        hosted = Hosted(entry=children.obedient, gpu=gpu, lease=self.lease)
        self.thread = threading.Thread(
            target=hosted, args=(Channel(theirs, COMMANDS), Config()), daemon=True
        )
        self.thread.start()

    def next(self):
        assert self.channel.poll(WAIT_SECONDS)
        return self.channel.receive()

    def end(self) -> None:
        self.channel.send(Shutdown())
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()


def held_elsewhere(lock) -> bool:
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_an_engine_holds_the_lock_of_its_gpu(lock):
    """Others wait for as long as it is there."""
    running = Running()
    assert isinstance(running.next(), EngineReady)
    assert held_elsewhere(lock)
    running.end()


def test_a_second_engine_waits_for_the_first_and_says_that_it_lives(lock, monkeypatch):
    """It loads its model as soon as the first has ended, whichever way that was."""
    monkeypatch.setattr(gpu_lock, "POLL_SECONDS", 0.01)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        running = Running()
        assert isinstance(running.next(), StageStarted)
        assert isinstance(running.next(), StageStarted)
    while isinstance(said := running.next(), StageStarted):
        pass
    assert isinstance(said, EngineReady)
    running.end()


def test_an_engine_that_waits_can_be_stopped(lock):
    """It never had the GPU."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        running = Running()
        assert isinstance(running.next(), StageStarted)
        running.end()


def test_an_engine_that_waits_ends_with_its_host(lock):
    """Nobody would hear of it any more."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        running = Running()
        assert isinstance(running.next(), StageStarted)
        running.channel.close()
        running.thread.join(WAIT_SECONDS)
        assert not running.thread.is_alive()


def test_a_link_in_the_place_of_a_lock_is_not_followed(lock, tmp_path):
    """The folder is everybody's, and so could be the link."""
    target = tmp_path / "target"
    lock.symlink_to(target)
    failed = Running().next()
    assert isinstance(failed, EngineFailed)
    assert f"Remove {lock}" in failed.detail
    assert not target.exists()


def test_an_engine_without_a_gpu_locks_nothing():
    """A CPU is everybody's."""
    running = Running("")
    assert isinstance(running.next(), EngineReady)
    running.end()


def test_a_gpu_has_one_lock_file_on_its_machine():
    """Its name is that of the GPU, which is no path."""
    assert lock_file("GPU-1a/../2").name == "sd-GPU-1a-..-2.lock"
    assert os.access(lock_file("0").parent, os.W_OK)
