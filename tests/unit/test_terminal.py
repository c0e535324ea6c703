"""Lines for whoever typed the command, written to a pipe like a shell's."""

import os
import subprocess
import sys

PROGRAM = "import sys\nfrom service.terminal import show\nsys.exit(show('a line'))"
FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
"""No file may grow: what a full disk does, without one."""


def test_a_line_is_printed():
    """The text, a line's end, exit code 0."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a line\n", b"")


def test_a_reader_that_has_seen_enough_is_no_failure():
    """`sd-api models | head -0` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path):
    """What cannot be written is said, once, without a traceback."""
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", FULL + PROGRAM],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "sd-api: the output cannot be written (File too large).\n"
