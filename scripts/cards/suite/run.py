"""The benchmark of one GPU: the parts in their order, each in a process of its own.

Whatever is known is written at once, so that a run that is ended early leaves what it has.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

import msgspec

from scripts.cards import images, process
from scripts.cards.measure import environment
from scripts.cards.suite.parts import MINUTES, PARTS, Part, Report, Task
from scripts.written import filled, replaced, table

MARGIN_SECONDS: Final = 6.0
"""Kept for the last files, after the last part has been ended."""

COMMAND: Final = (sys.executable, "-m", "scripts.cards.suite.part")
UNFINISHED: Final = "not finished when this was written"
RESULTS, SHOWN, LOG, SHEET = "card.json", "card.md", "card.log", "images.png"
"""What a run leaves in its folder."""


class Suite:
    """The parts that are asked for, and what is known of them."""

    def __init__(
        self,
        given: argparse.Namespace,
        out: Path,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._given, self._out, self._command = given, out, command
        self._started = time.monotonic()
        self._ends = self._started + given.minutes * 60 - MARGIN_SECONDS
        self._found: dict[str, dict[str, Any]] = {}

    def run(self) -> int:
        """Run the parts; return the exit code."""
        self._out.mkdir(parents=True, exist_ok=True)
        wanted = [part for part in PARTS if part.name in {"machine", *self._given.parts}]
        with (
            TemporaryDirectory(prefix="card-", ignore_cleanup_errors=True) as scratch,
            (self._out / LOG).open("w+b") as log,
        ):
            for number, part in enumerate(wanted):
                kept = sum(each.seconds for each in wanted[number + 1 :])
                left = self._ends - time.monotonic() - kept * self._given.minutes / MINUTES
                report = self._part(part, left, scratch, log)
                if "exit" in report.figures:
                    print(f"benchmark_card: {report.failure}", file=sys.stderr)
                    return int(report.figures["exit"])
                with suppress(OSError):  # No image is worth a result.
                    images.sheet(Path(scratch) / "images", self._out / SHEET)
        print((self._out / SHOWN).read_text(encoding="utf-8"))
        return int(any(each["failure"] for each in self._found.values()))

    def _part(self, part: Part, seconds: float, scratch: str, log: IO[bytes]) -> Report:
        """Run a part until it ends or its time is over; return what it told."""
        begins = time.monotonic()
        if seconds <= 0:
            report = Report(failure="not run: no time was left")
            self._note(part, report, begins)
            return report
        log.write(f"\n== {part.name}, {seconds:.0f} s at most\n".encode())
        log.flush()
        # What a part that is killed leaves in TMPDIR goes with it.
        given = environment({"PYTHONUNBUFFERED": "1", "TMPDIR": scratch})
        task = Task(
            part=part.name,
            folder=scratch,
            model=self._given.model,
            on_cpu=self._given.on_cpu,
            vram=self._given.vram,
            seconds=seconds,
        )

        def told(line: bytes) -> None:
            report = msgspec.json.decode(line, type=Report) if line else Report()
            self._note(part, replace(report, failure=report.failure or UNFINISHED), begins)

        line, fault = process.run(self._command, task, given, seconds=seconds, log=log, told=told)
        report = msgspec.json.decode(line, type=Report) if line else Report()
        if part.name != "machine":  # Without a machine nothing is measured; a part alone may fail.
            report.figures.pop("exit", None)
        report.fail(fault)
        self._note(part, report, begins)
        ended = f"failed: {report.failure}" if report.failure else "done"
        said = f"{part.name}: {ended}, {time.monotonic() - begins:.0f} s"
        log.seek(0, os.SEEK_END)
        log.write(f"== {said}\n".encode())
        if "exit" not in report.figures:
            print(said, file=sys.stderr, flush=True)
        return report

    def _note(self, part: Part, report: Report, begins: float) -> None:
        """Keep what is known of a part, and write it."""
        if "exit" in report.figures:
            return
        seconds = round(time.monotonic() - begins, 1)
        self._found[part.name] = {"title": part.title, "seconds": seconds, **asdict(report)}
        result = {"measured": self._measured(), "parts": self._found}
        text = section(result)
        replaced(self._out / RESULTS, json.dumps(result, indent=1) + "\n")
        replaced(self._out / SHOWN, f"# Benchmark of one GPU\n\n{text}\n")
        if self._given.write:
            old = self._given.write.read_text(encoding="utf-8")
            replaced(self._given.write, filled(old, lambda _kind, _name: ["", text, ""]))

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


def section(result: Mapping[str, Any]) -> str:
    """Return one run: where it was, and each part with its table and its notes."""
    return "\n\n".join([result["measured"], *map(_part, result["parts"].values())])


def _part(found: Mapping[str, Any]) -> str:
    ended = f"**Failed:** {found['failure']}. " if found["failure"] else ""
    lines = [f"### {found['title']}"]
    if found["table"]:
        head, *rows = found["table"]
        lines.append(table(head, rows))
    lines += ["\n".join(f"- {note}" for note in found["notes"])] if found["notes"] else []
    return "\n\n".join([*lines, f"{ended}{found['seconds']:.0f} s."])
