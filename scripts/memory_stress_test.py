"""Find out whether the service keeps its memory; see ``tests/drills/stress``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Started as a file, Python looks beside it.

from tests.drills.stress.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
