"""Drills as tests run them: the real command, in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

DRILL_SECONDS = 600
"""Reached only when something is broken: two quiet cores need 50."""


def drilled(*words: object) -> tuple[int, str]:
    """Run ``python -m`` with these words to its end; return its exit code and what it said."""
    command = [sys.executable, "-m", *map(str, words)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as drill:
        try:
            said, _ = drill.communicate(timeout=DRILL_SECONDS)
        except subprocess.TimeoutExpired:
            drill.terminate()  # It ends all that it started.
            said, _ = drill.communicate()
        return drill.returncode, said
