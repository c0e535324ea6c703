"""Faults on purpose."""

import json
import os
import threading

import pytest
from structlog.testing import capture_logs

from service.core.stage import Stage
from service.engine.faults import FaultFile, FaultInjector


def write(path, **faults) -> None:
    """Write the file so that its time is new, however coarse the clock of the file system."""
    later = path.stat().st_mtime_ns + 10**9 if path.exists() else 10**18
    path.write_text(json.dumps(faults))
    os.utime(path, ns=(later, later))


def test_a_stage_runs_out_of_memory_as_often_as_told():
    """Only that stage, and then no more."""
    faults = FaultInjector(oom={"denoise": 2})
    for _ in range(2):
        with pytest.raises(MemoryError, match="on purpose"):
            faults(Stage.DENOISE, 3)
    faults(Stage.DENOISE, 3)
    faults(Stage.VAE_DECODE, 1)


def test_an_unknown_stage_is_refused():
    """A drill that injects nothing by a typing error proves nothing."""
    with pytest.raises(ValueError, match="vae_decoding"):
        FaultInjector(oom={"vae_decoding": 1})


def test_a_file_is_read_again_when_it_changes(tmp_path):
    """Each change counts anew; without the file nothing goes wrong."""
    path = tmp_path / "faults.json"
    faults = FaultFile(path)
    faults(Stage.DENOISE, 1)
    for _ in range(2):
        write(path, oom={"denoise": 1})
        with pytest.raises(MemoryError):
            faults(Stage.DENOISE, 1)
        faults(Stage.DENOISE, 1)
    write(path, oom={"denoise": 1})
    path.unlink()
    faults(Stage.DENOISE, 1)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        "",
        "[" * 100_000,
        '{"out_of_memory": 1}',
        '{"oom": {"denoise": "3"}}',
        '{"oom": {"denoise": -1}}',
        '{"oom_images": 0}',
        '{"oom_images": "2"}',
        '{"oom": [1]}',
        '{"step_seconds": -1}',
        '{"step_seconds": NaN}',
        '{"step_seconds": "1"}',
        '{"load_seconds": -1}',
        '{"hang": 1}',
    ],
)
def test_a_file_that_says_nothing_sensible_is_no_fault(tmp_path, text):
    """It may be half written; the log says so."""
    path = tmp_path / "faults.json"
    path.write_text(text)
    FaultFile(path)(Stage.DENOISE, 1)


def test_what_is_no_readable_file_is_no_fault(tmp_path):
    """A folder, a path below a file, bytes that are no text: the engine works on."""
    blob = tmp_path / "blob"
    blob.write_bytes(b"\xff\xfe{")
    for path in (tmp_path, blob / "below", blob):
        FaultFile(path)(Stage.DENOISE, 1)


def test_a_hang_lasts_until_the_file_says_otherwise(tmp_path):
    """The stage returns only then."""
    path = tmp_path / "faults.json"
    write(path, hang=True)
    faults = FaultFile(path)
    returned = threading.Event()

    def stage() -> None:
        faults(Stage.DENOISE, 1)
        returned.set()

    thread = threading.Thread(target=stage, daemon=True)
    thread.start()
    assert not returned.wait(0.2)
    write(path, hang=False)
    assert returned.wait(10)
    thread.join()


def test_a_pipe_in_place_of_the_file_holds_up_no_stage(tmp_path):
    """Opening it would wait for a writer, and the watchdog would kill the engine for it."""
    path = tmp_path / "faults.json"
    os.mkfifo(path)
    with capture_logs() as lines:
        FaultFile(path)(Stage.DENOISE, 1)
    (line,) = [line for line in lines if line["event"] == "fault_file_unreadable"]
    assert line["reason"] == "is a named pipe, and must be a regular file"


def test_a_model_that_is_loaded_later_may_run_out_of_memory(tmp_path):
    """The stage load, which the first model of an engine has no faults in."""
    path = tmp_path / "faults.json"
    path.write_text('{"oom": {"load": 1}, "load_seconds": 0.01}')
    faults = FaultFile(path)
    with pytest.raises(MemoryError):
        faults(Stage.LOAD, 1)
    faults(Stage.LOAD, 1)
