"""How the engine process starts and ends, over a loader of paper."""

import json
import multiprocessing
import signal
from typing import Any

import pytest

from service.config.table import Config
from service.core.stage import Stage
from service.engine.channel import COMMANDS, EVENTS, Channel
from service.engine.process import worker
from service.engine.protocol import Command, EngineEvent, EngineFailed, StageStarted
from service.errors import ModelError
from service.system import installation

CONFIG = Config(log_format="json")


@pytest.fixture
def pipe():
    """Open a pipe: the service's end and the engine's end."""
    one, other = multiprocessing.Pipe()
    ours: Channel[Command, EngineEvent] = Channel(one, EVENTS)
    theirs: Channel[EngineEvent, Command] = Channel(other, COMMANDS)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture(autouse=True)
def _keep_signals():
    """Give the handlers back that the worker replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def raising(error: Exception) -> Any:
    def start(_config: Config, _send: object) -> None:
        raise error

    return start


def test_a_model_that_cannot_be_loaded_is_reported(pipe, monkeypatch):
    """The reason goes to the service, and the process ends in order."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "start", raising(ModelError("no such folder")))
    worker.run(theirs, CONFIG)
    assert ours.receive() == EngineFailed(code="model_error", detail="no such folder")


def test_a_lack_of_memory_is_told_from_what_stays(pipe, monkeypatch):
    """The service tries again where memory was short."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "start", raising(ModelError("no memory left", transient=True)))
    worker.run(theirs, CONFIG)
    failed = EngineFailed(code="model_error", detail="no memory left", transient=True)
    assert ours.receive() == failed


def test_missing_packages_are_reported_with_the_cure(pipe, monkeypatch):
    """An installation without torch says what to install."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "start", raising(ImportError("No module named 'torch'")))
    worker.run(theirs, CONFIG)
    assert f"Install what the engine needs: {installation.here().engine()}" in ours.receive().detail


def test_an_unforeseen_error_is_logged_and_ends_with_1(pipe, monkeypatch, capfd):
    """The service sees an exit code other than 0, and the log says why, as JSON."""
    _, theirs = pipe
    monkeypatch.setattr(worker, "start", raising(ZeroDivisionError("oh")))
    with pytest.raises(SystemExit) as ended:
        worker.run(theirs, CONFIG)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert ended.value.code == 1
    assert [line["event"] for line in lines] == ["engine_failed"]


def test_a_service_that_went_away_ends_the_engine_in_order(pipe, monkeypatch, capfd):
    """An engine whose service is gone ends without an error."""
    ours, theirs = pipe
    ours.close()
    monkeypatch.setattr(worker, "start", raising(ModelError("no such folder")))
    worker.run(theirs, CONFIG)
    assert "service_went_away" in capfd.readouterr().err


def test_every_stage_is_announced_before_its_faults(tmp_path):
    """The service knows what hangs; what is no stage of an image has no faults."""
    faults = tmp_path / "faults.json"
    faults.write_text('{"oom": {"denoise": 1}}')
    told: list[EngineEvent] = []
    begin = worker.announcing(Config(fault_file=str(faults)), told.append)
    begin(Stage.LOAD, 0)
    with pytest.raises(MemoryError):
        begin(Stage.DENOISE, 2)
    assert told == [StageStarted(stage=Stage.LOAD), StageStarted(stage=Stage.DENOISE, images=2)]


def test_without_a_fault_file_stages_are_only_announced():
    """Nothing goes wrong on purpose."""
    told: list[EngineEvent] = []
    worker.announcing(CONFIG, told.append)(Stage.VAE_DECODE, 1)
    assert told == [StageStarted(stage=Stage.VAE_DECODE, images=1)]
