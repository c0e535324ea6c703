"""The process of one part of the benchmark."""

import importlib
import traceback

import msgspec

from scripts.cards import process
from scripts.cards.suite.parts import Report, Task, Tell
from service.cli import exits
from service.errors import ServiceError


def carry_out(task: Task, tell: Tell) -> None:
    """Run a part; what goes wrong is its failure."""
    last = Report()

    def keep(report: Report) -> None:
        nonlocal last
        last = report
        tell(report)

    try:
        importlib.import_module(f"scripts.cards.suite.{task.part}").run(task, keep)
    except ServiceError as error:
        last.fail(error.detail)
        last.figures["exit"] = int(exits.code(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
        traceback.print_exc()
        lines = str(error).splitlines()
        last.fail(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
    tell(last)


if __name__ == "__main__":
    process.carry_out(lambda line, tell: carry_out(msgspec.json.decode(line, type=Task), tell))
