"""Lines for whoever typed the command, written to a pipe like a shell's."""

import os
import subprocess
import sys

PROGRAM = "import sys\nfrom service.cli.terminal import show\nsys.exit(show('a line'))"
CLOSED = "from service.cli.terminal import open_closed\nopen_closed()\n"
FORGIVING = """
from service.cli.terminal import print_error, forgiving
import tqdm
with forgiving():
    list(tqdm.trange(3, file=sys.stderr))
    print_error("no")
print("done")
"""
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


def closing(redirections: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a shell that closes some of its standard streams."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, program],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_result_without_an_output_is_one_line_and_exit_code_1():
    """Standard output was closed: what was asked for is lost, and nobody may take it for done."""
    done = closing(">&-", CLOSED + PROGRAM)
    assert done.returncode == 1
    assert done.stderr == "sd-api: the output cannot be written (Bad file descriptor).\n"


def test_closed_standard_streams_are_open_on_nothing():
    """The next file gets none of their numbers, and a child finds them open, too."""
    look = "import os, sys\nprint(os.open('/', os.O_RDONLY) > 2, file=sys.stderr)\n"
    done = closing("<&- >&-", CLOSED + look + "os.system('readlink /proc/self/fd/0 >&2')")
    assert done.stderr == "True\n/dev/null\n"
    done = closing("2>&-", CLOSED + "import sys\nprint('x', file=sys.stderr)\n" + PROGRAM)
    assert (done.returncode, done.stdout) == (0, "a line\n")


def test_a_dead_reader_of_standard_error_ends_no_command():
    """Bars and complaints are lost, the work is done."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sys\n" + FORGIVING],
            stdout=subprocess.PIPE,
            stderr=writing,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"done\n")
