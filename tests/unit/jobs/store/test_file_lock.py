"""One owner at a time."""

import subprocess
import sys

import pytest

from service.jobs.store.file_lock import FileLock

HOLDER = """
import sys
from pathlib import Path
from service.jobs.store.file_lock import FileLock
assert FileLock(Path(sys.argv[1])).take()
print("taken", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock.")


def test_a_claim_is_had_once(tmp_path):
    """The second of two waits as long as it said, and has it after the first gave it back."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take()
    assert first.take()
    assert not second.take()
    assert not second.take(0.06)
    first.release()
    first.release()
    assert second.take()
    second.release()


def test_a_killed_process_holds_nothing(tmp_path):
    """The file that it leaves behind claims nothing by itself."""
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        claim = FileLock(path)
        assert not claim.take()
        holder.kill()
        holder.wait(timeout=30)
        assert claim.take(30)
        claim.release()
