"""The benchmark of one GPU: the parts in their order, each in a process group of its own.

Whatever is known is written at once, so that a run that is ended early leaves what it has.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

from scripts.cards import pictures
from scripts.cards.suite import page
from scripts.cards.suite.parts import MINUTES, PARTS, Part, Report, Task, read_report, replaced
from scripts.cards.suite.wheels import ROOT

MARGIN_SECONDS: Final = 6.0
"""Kept for the last files, after the last part has been ended."""

POLL_SECONDS: Final = 0.1
UNFINISHED: Final = "not finished when this was written"
RESULTS, SHOWN, LOG, SHEET = "card.json", "card.md", "card.log", "images.png"
"""What a run leaves in its folder."""


class Suite:
    """The parts that are asked for, and what is known of them."""

    def __init__(
        self,
        given: argparse.Namespace,
        out: Path,
        *,
        publish: Callable[[Mapping[str, Any]], object] = lambda _result: None,
        command: Sequence[str] = (sys.executable, "-m", "scripts.cards.suite.part"),
    ) -> None:
        self._given, self._out, self._publish = given, out, publish
        self._command = command
        self._started = time.monotonic()
        self._ends = self._started + given.minutes * 60 - MARGIN_SECONDS
        self._found: dict[str, dict[str, Any]] = {}

    def run(self) -> int:
        """Run the parts; return the exit code."""
        self._out.mkdir(parents=True, exist_ok=True)
        wanted = [part for part in PARTS if part.name in {"machine", *self._given.parts}]
        with (
            TemporaryDirectory(prefix="card-", ignore_cleanup_errors=True) as scratch,
            (self._out / LOG).open("w", encoding="utf-8") as log,
        ):
            for part in wanted:
                report = self._part(part, wanted, Path(scratch), log)
                if part.name == "machine" and "exit" in report.figures:
                    return self._refused(report)
                with suppress(OSError):  # No image is worth a result.
                    pictures.sheet(Path(scratch) / "images", self._out / SHEET)
        print((self._out / SHOWN).read_text(encoding="utf-8"))
        return int(any(each["failure"] for each in self._found.values()))

    def seconds(self, part: Part, wanted: Sequence[Part]) -> float:
        """Return how long a part may take: all that is left but what later parts are kept."""
        later = wanted[wanted.index(part) + 1 :]
        kept = sum(each.seconds for each in later) * self._given.minutes / MINUTES
        return float(self._ends - time.monotonic() - kept)

    def _part(self, part: Part, wanted: Sequence[Part], scratch: Path, log: IO[str]) -> Report:
        seconds = self.seconds(part, wanted)
        task = Task(
            part=part.name,
            folder=str(scratch),
            seconds=max(seconds, 0.0),
            **{name: getattr(self._given, name) for name in ("model", "on_cpu", "vram")},
            **{name: getattr(self._given, name) for name in ("rows", "rounds", "images")},
        )
        begins = time.monotonic()
        if seconds <= 0:
            report = Report(failure="not run: no time was left")
            self._note(part, report, begins)
            return report
        log.write(f"\n== {part.name}, {seconds:.0f} s at most\n")
        log.flush()

        def told(report: Report) -> None:
            self._note(part, replace(report, failure=report.failure or UNFINISHED), begins)

        reason = self._watched(task, begins, log, told)
        report = read_report(scratch, part.name)
        if reason:
            report.fail(reason)
        self._note(part, report, begins)
        said = f"failed: {report.failure}" if report.failure else "done"
        line = f"{part.name}: {said}, {time.monotonic() - begins:.0f} s"
        log.write(f"== {line}\n")
        if "exit" not in report.figures:
            print(line, file=sys.stderr, flush=True)
        return report

    def _watched(
        self, task: Task, begins: float, log: IO[str], told: Callable[[Report], object]
    ) -> str:
        """Run a part until it ends or its time is over; return why it gave no whole report."""
        paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": task.folder,  # What a part that is killed leaves there goes with it.
        }
        last = Report()
        with subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process:
            try:
                assert process.stdin is not None  # noqa: S101 - it is a pipe
                with suppress(BrokenPipeError):  # It has ended already; its exit code tells.
                    process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
                    process.stdin.flush()
                while process.poll() is None and time.monotonic() - begins < task.seconds:
                    time.sleep(POLL_SECONDS)
                    report = read_report(Path(task.folder), task.part)
                    if report != last:
                        told(report)
                        last = report
                late = process.poll() is None
            finally:
                with suppress(ProcessLookupError):  # All that it started has its group.
                    os.killpg(process.pid, signal.SIGKILL)
        if late:
            return f"cut off after {task.seconds:.0f} s"
        if process.returncode < 0:
            return f"ended by signal {-process.returncode}"
        silent = read_report(Path(task.folder), task.part) == Report()
        return f"exit code {process.returncode}; see {LOG}" if silent else ""

    def _note(self, part: Part, report: Report, begins: float) -> None:
        """Keep what is known of a part, and write it."""
        if "exit" in report.figures:
            return
        seconds = time.monotonic() - begins
        self._found[part.name] = {
            "title": part.title,
            "seconds": round(seconds, 1),
            **asdict(report),
        }
        result = {"measured": self._measured(), "parts": self._found}
        replaced(self._out / RESULTS, json.dumps(result, indent=1) + "\n")
        replaced(self._out / SHOWN, f"# Benchmark of one GPU\n\n{page.section(result)}\n")
        self._publish(result)

    def _measured(self) -> str:
        known = self._found.get("machine", {}).get("figures", {})
        where = ", ".join(
            f"{name} {known[name]}" for name in ("device", "torch", "python") if name in known
        )
        cap = "no memory limit" if self._given.on_cpu else f"a limit of {self._given.vram:g} GB"
        seconds = time.monotonic() - self._started
        return (
            f"{datetime.now(UTC):%Y-%m-%d}: {where}; {Path(self._given.model).name}; "
            f"{cap} in the first table; {seconds:.0f} s in all."
        )

    def _refused(self, report: Report) -> int:
        print(f"benchmark_card: {report.failure}", file=sys.stderr)
        return int(report.figures["exit"])
