"""The keys in force, and the file they come from."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.access import keyring
from service.access.keyring import Keyring
from service.config.credentials import Keys
from service.errors import ConfigError

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with the key of alice, for its owner only."""
    path = tmp_path / "keys"
    path.write_text(f"alice:{ALICE}\n")
    path.chmod(0o600)
    return path


def write(path: Path, text: str) -> None:
    """Write so that the change shows, however coarse the clock of the file system is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def refreshed(ring: Keyring) -> bool:
    """Read the file again if it changed; return whether other keys are in force now."""
    keys = ring.changed()
    if keys is not None:
        ring.take(keys)
    return keys is not None


def test_without_keys_nobody_needs_one():
    """And there is nothing to watch."""
    ring = Keyring(Keys())
    assert (bool(ring), ring.watched, refreshed(ring)) == (False, False, False)


def test_keys_can_be_added_and_revoked(file):
    """Without a restart; the log names them, and no secret."""
    ring = Keyring(Keys(), str(file))
    assert (bool(ring), ring.watched, ring.names) == (True, True, ("alice",))
    assert refreshed(ring) is False
    write(file, f"bob:{BOB} rate=5\n")
    with capture_logs() as lines:
        assert refreshed(ring) is True
    assert lines == [
        {
            "event": "keys_read",
            "log_level": "info",
            "names": 1,
            "added": ["bob"],
            "revoked": ["alice"],
        }
    ]
    found = ring.find(BOB)
    assert (ring.find(ALICE), found and found.rate) == (None, 5)


@pytest.mark.parametrize("text", ["", "# nobody\n", f"bob {BOB}\n", "\x00", None])
def test_a_file_that_became_wrong_changes_nothing(file, text):
    """It locks nobody out, lets nobody in, is complained of once, and heals."""
    ring = Keyring(Keys(), str(file))
    if text is None:
        file.unlink()
    else:
        write(file, text)
    with capture_logs() as lines:
        assert [refreshed(ring), refreshed(ring)] == [False, False]
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("keys_not_read", "error")
    assert BOB not in str(line)
    found = ring.find(ALICE)
    assert (bool(ring), found and found.name) == (True, "alice")
    write(file, f"alice:{ALICE}\nbob:{BOB}\n")
    assert (refreshed(ring), ring.names) == (True, ("alice", "bob"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"alice:{ALICE}\nbob:short\n", "line 2 (bob) needs a secret"),
        ("", "holds no key"),
        ("é".encode("latin-1"), "is no UTF-8"),
        (b"#" * (keyring.LARGEST_FILE + 1), "has more than 1000000 bytes"),
    ],
)
def test_a_wrong_file_ends_the_start(file, text, words):
    """The error names the file and the line, and repeats no secret."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        Keyring(Keys(), str(file))
    assert caught.value.detail.startswith(f"API_KEYS_FILE={file}: ")
    assert words in caught.value.detail
    assert ALICE not in caught.value.detail


def test_a_missing_file_ends_the_start(tmp_path):
    """No keys would mean that everybody may come in."""
    with pytest.raises(ConfigError, match="No such file"):
        Keyring(Keys(), str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"API_KEYS_FILE=.*: is a folder"):
        Keyring(Keys(), str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"API_KEYS_FILE=.*: is a named pipe"):
        Keyring(Keys(), str(tmp_path / "pipe"))


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_file_that_everybody_can_read_is_warned_of(file, mode, warnings):
    """With the cure."""
    file.chmod(mode)
    with capture_logs() as lines:
        Keyring(Keys(), str(file))
    assert [line["event"] for line in lines] == ["keys_readable_by_everybody"] * warnings


def test_the_queue_sees_new_shares_at_once(tmp_path):
    """One mapping for the life of the service: a key that is added has its share at once."""
    path = tmp_path / "keys"
    path.write_text("alice:0f3a9c5e7b1d28460f3a9c5e7b1d2846 priority=3\n")
    keyring = Keyring(Keys(), str(path))
    weights = keyring.weights
    assert weights == {"alice": 3}
    path.write_text(path.read_text() + "bob:8d1e6f0a4c7b39528d1e6f0a4c7b3952\n")
    assert refreshed(keyring)
    assert weights == {"alice": 3, "bob": 1}
