"""A busy loop that takes as much CPU as it is told to.

``python -m tests.drills.hostile.burner``: each line of its input is a rate in CPU seconds a
second; it ends with its input.
"""

import select
import sys
import time
from typing import Final

PERIOD_SECONDS: Final = 0.02
MOST_BEHIND: Final = 0.1
"""CPU seconds that are caught up after others had the CPU; what is beyond is left out."""


class Debt:
    """CPU seconds that are still to be burnt."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.seconds = 0.0

    def passed(self, wall: float, cpu: float) -> None:
        """Count what is to be burnt for ``wall`` seconds, less the CPU seconds that were."""
        self.seconds = min(self.seconds + self.rate * wall - cpu, MOST_BEHIND)

    def change(self, rate: float) -> None:
        """Burn that many CPU seconds a second from now on."""
        self.rate, self.seconds = rate, 0.0


def burn(seconds: float) -> None:
    """Be busy for that much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        for _ in range(500):
            pass


def main() -> None:
    """Burn until the input ends."""
    debt = Debt()
    wall, cpu = time.monotonic(), time.process_time()
    while True:
        # At rest nothing wakes it but its input.
        told, _, _ = select.select([sys.stdin], [], [], PERIOD_SECONDS if debt.rate else None)
        now, taken = time.monotonic(), time.process_time()
        debt.passed(now - wall, taken - cpu)
        wall, cpu = now, taken
        if told:
            line = sys.stdin.readline()
            if not line:
                return
            debt.change(float(line))
        burn(max(debt.seconds, 0.0))


if __name__ == "__main__":
    print("ready", flush=True)
    main()
