"""Standard error behind a queue: bounded, counted, and never waited for."""

import os
import subprocess
import sys
from contextlib import closing

import pytest

from service.telemetry import stderr
from service.telemetry.stderr import Lines

FULL = 1 << 20
"""More than a pipe takes."""


@pytest.fixture
def pipe():
    """Return a file that reads what is written to a descriptor, and the descriptor."""
    reading, writing = os.pipe()
    with closing(os.fdopen(reading, "rb")) as file:
        yield file, writing
    os.close(writing)


def ended(lines: Lines) -> bool:
    return lines.end(20.0)


def test_lines_arrive_whole_and_in_order(pipe):
    """Those that are left at the end, too."""
    file, writing = pipe
    lines = Lines(writing)
    for number in range(100):
        lines.put(f"{number}\n".encode())
    assert ended(lines)
    assert [int(file.readline()) for _ in range(100)] == list(range(100))
    assert lines.dropped == 0


def test_what_does_not_fit_is_dropped_counted_and_told(pipe):
    """The oldest lines are kept; the gap is told once, when lines pass again."""
    file, writing = pipe
    told: list[int] = []
    lines = Lines(writing, most_bytes=FULL, announce=told.append)
    for _ in range(40):
        lines.put(b"x" * (FULL // 16 - 1) + b"\n")
    # 16 fit into the queue; the pipe may have taken one more meanwhile.
    dropped = lines.dropped
    assert dropped in (23, 24)
    assert told == []
    read = [file.readline() for _ in range(40 - dropped)]
    assert {len(line) for line in read} == {FULL // 16}
    lines.put(b"again\n")
    assert file.readline() == b"again\n"
    assert ended(lines)
    assert told == [dropped]


def test_an_end_does_not_wait_for_a_reader(pipe):
    """It says that lines are left."""
    file, writing = pipe
    lines = Lines(writing)
    lines.put(b"x" * (FULL - 1) + b"\n")
    assert lines.end(0.01) is False
    assert len(file.readline()) == FULL  # Nothing may be left that writes to this number.
    assert ended(lines)


def test_lines_that_cannot_be_written_are_dropped_one_by_one():
    """The thread goes on: the next line may find a disk with room."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing)
    for _ in range(3):
        lines.put(b"x\n")
    assert ended(lines)
    assert lines.dropped == 3
    os.close(writing)


def test_a_descriptor_that_does_not_block_is_waited_for(pipe):
    """Who shares a pipe or a terminal may have made it so."""
    file, writing = pipe
    os.set_blocking(writing, False)
    lines = Lines(writing)
    lines.put(b"x" * (FULL - 1) + b"\n")
    assert len(file.readline()) == FULL
    assert ended(lines)
    assert lines.dropped == 0


def test_a_finalizer_that_logs_inside_of_a_line_does_no_harm(pipe):
    """Garbage is collected anywhere, and what it leaves behind is told in the log."""
    file, writing = pipe
    lines = Lines(writing)

    class Line(bytes):
        def __len__(self) -> int:
            lines.put(b"inside\n")
            return super().__len__()

    lines.put(Line(b"outside\n"))
    assert ended(lines)
    assert b"inside\n" in [file.readline(), file.readline()]


def program(body: str) -> list[str]:
    text = (
        f"import os, sys\nfrom service.telemetry import stderr\nwith stderr.queued():\n    {body}"
    )
    return [sys.executable, "-c", text]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('from python', file=sys.stderr)", b"from python\n"),
        ("os.write(2, b'from a library\\n')", b"from a library\n"),
        ("os.write(2, b'without an end')", b"without an end"),
        ("os.write(2, b'10%\\r20%\\r')", b"10%\r20%\r"),
        ("print('\\udce4', file=sys.stderr)", b"\\udce4\n"),
        ("os.system('echo from a child >&2')", b"from a child\n"),
        ("print(sys.stderr.isatty(), sys.stderr.fileno(), file=sys.stderr)", b"False 2\n"),
    ],
)
def test_everything_that_is_written_arrives(body, expected):
    """Whoever writes it, by whatever way."""
    done = subprocess.run(program(body), capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, expected)


def test_a_last_word_after_the_queue_arrives():
    """A traceback ends a program; by then standard error is as it was."""
    done = subprocess.run(
        [*program("pass")[:2], program("pass")[2] + "\nraise SystemExit('the end')"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, b"the end\n")


def read_nothing(body: str) -> int:
    """Run a program whose standard error nobody reads; return its exit code."""
    reading, writing = os.pipe()
    try:
        return subprocess.run(program(body), stderr=writing, check=False, timeout=60).returncode
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    "body",
    [
        "print('x' * 900_000, file=sys.stderr); os.write(2, b'x' * 900_000)",
        "print('x' * 900_000, file=sys.stderr); raise SystemExit(0)",
    ],
)
def test_a_program_whose_standard_error_nobody_reads_ends(body):
    """What is stuck is left behind, whatever Python writes at its end."""
    assert read_nothing(body) == 0


def test_a_stream_in_the_place_of_standard_error_is_left_alone():
    """A program that embeds the service has its own."""
    before = sys.stderr
    with stderr.queued():
        assert sys.stderr is before
        assert stderr.dropped() == 0


def test_a_gap_is_told_in_the_log_or_not_at_all():
    """Before the log is set up, structlog would print to standard output."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            program("print('x', file=sys.stderr)"),
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (0, b"")
