"""Addresses and folders that end a start before anything listens."""

import socket
from pathlib import Path

import pytest

from service.cli import exits
from service.cli import preflight as checks
from service.cli.exits import Exit
from service.errors import StoreFull
from service.jobs.store.file_lock import FileLock
from tests.support.engine_extra import needs_engine
from tests.unit.cli.preflight.start import told


@needs_engine
def test_a_taken_port(start):
    """The port is named, with the cure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = told(start.run(API_PORT=taken.getsockname()[1], DEVICE="cpu"))
    assert code == Exit.BUSY
    assert "set API_PORT to a free port" in line


@needs_engine
def test_an_address_of_another_machine(start):
    """It will never be free: a wrong setting."""
    code, line = told(start.run(API_HOST="192.0.2.1", ALLOW_UNAUTHENTICATED="true", DEVICE="cpu"))
    assert code == Exit.SETTING
    assert "API_HOST=192.0.2.1" in line


def test_a_public_address_without_keys(start):
    """The line names the ways out."""
    code, line = told(start.run(API_HOST="0.0.0.0"))  # noqa: S104 - refused
    assert code == Exit.SETTING
    assert "ALLOW_UNAUTHENTICATED=true" in line


@needs_engine
def test_a_data_folder_in_use(start):
    """Two services would run every job twice."""
    folder = start.folder / "data"
    folder.mkdir()
    claim = FileLock(folder / "jobs.sqlite.lock")
    assert claim.take()
    try:
        code, line = told(start.run(DATA_DIR=folder, DEVICE="cpu"))
    finally:
        claim.release()
    assert code == Exit.BUSY
    assert "is in use by another process of the service" in line


@needs_engine
def test_a_data_folder_that_cannot_be_written(start):
    """The line names file and reason."""
    blocked = start.folder / "file"
    blocked.touch()
    code, line = told(start.run(DATA_DIR=blocked / "data", DEVICE="cpu"))
    assert code == Exit.FOLDER_UNUSABLE
    assert str(blocked) in line


def test_a_full_disk(tmp_path, monkeypatch):
    """It is told from a folder that is not ours, and nothing is left behind."""

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreFull, match=r"DATA_DIR=.*its disk is full") as caught:
        checks.demand_writable(tmp_path / "data", "DATA_DIR", mode=0o700)
    assert exits.code(caught.value) == Exit.DISK_FULL
    assert list((tmp_path / "data").iterdir()) == []
