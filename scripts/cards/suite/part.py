"""The process of one part: reads its task from standard input, leaves a report in a file.

Standard input stays open as long as the process that started it lives. When it closes, this
process and all that it started are ended: a card is not left to work for nobody.
"""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from typing import Final

from scripts.cards.suite.parts import Report, Task, write_report
from service import exits
from service.errors import ServiceError

MODULES: Final = {
    "machine": "scripts.cards.suite.machine",
    "rows": "scripts.cards.suite.versus",
    "shortage": "scripts.cards.suite.shortage",
    "batches": "scripts.cards.suite.batches",
    "service": "scripts.cards.suite.served",
    "parity": "scripts.cards.suite.parity",
}
"""Each has a function ``run(task, tell)``."""


def carry_out(task: Task) -> Report:
    """Run a part; what goes wrong is its failure."""
    last = Report()

    def tell(report: Report) -> None:
        nonlocal last
        last = report
        write_report(task, report)

    try:
        importlib.import_module(MODULES[task.part]).run(task, tell)
    except ServiceError as error:
        last.fail(error.detail)
        last.figures["exit"] = int(exits.code(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
        traceback.print_exc()
        lines = str(error).splitlines()
        last.fail(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    write_report(task, last)
    return last


def end_with_starter() -> None:
    """End this process group as soon as standard input closes."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Carry out the task on standard input; return the exit code."""
    task = Task(**json.loads(sys.stdin.readline()))
    threading.Thread(target=end_with_starter, daemon=True).start()
    return int(bool(carry_out(task).failure))


if __name__ == "__main__":
    sys.exit(main())
