"""More than the service can do, and pictures that nobody wants: short forms of both drills."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

DRILL_SECONDS = 600
"""Reached only when something is broken."""


def drill(*words: object) -> tuple[int, str]:
    """Run a drill to its end; return its exit code and what it said."""
    command = [sys.executable, "-m", *map(str, words)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=DRILL_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate()
        return process.returncode, said


def test_ten_times_the_load_is_answered():
    """Who is let in has a picture or 408 in time; who is refused is told when to come back."""
    code, said = drill("scripts.overload", "--seconds", 8, "--capacity-seconds", 6)
    assert code == 0, said
    everybody = next(line for line in said.splitlines() if line.startswith("| all"))
    came, refused, let_in = (int(cell) for cell in everybody.split("|")[2:5])
    assert came > refused > 0
    assert let_in > 0
    assert "Waiting and running when everybody had an answer: 0 and 0" in said


def test_the_engine_is_free_within_a_step():
    """Deleted, hung up on or out of time: a picture of 50 steps gets one more at most."""
    code, said = drill("scripts.cancel_figure", "--jobs", 6)
    assert code == 0, said
