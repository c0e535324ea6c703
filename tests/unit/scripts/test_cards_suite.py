"""A run: parts in processes of their own, within the time, and whatever is known is kept."""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from scripts.cards import process
from scripts.cards.suite import part
from scripts.cards.suite import run as suite
from scripts.cards.suite.parts import PARTS, Report, Task
from scripts.cards.suite.run import Suite
from scripts.cards.suite.wheels import ROOT
from service.cli.exits import Exit
from service.errors import GpuMissing

READS = (
    "import os, sys, msgspec; from scripts.cards import process\n"
    "from scripts.cards.suite.parts import Report, Task\n"
    "def work(line, answer):\n"
    "  name = msgspec.json.decode(line, type=Task).part\n"
    "  def tell(**more): answer(Report(**more))\n"
)


def given(**more: Any) -> argparse.Namespace:
    known = {"model": "demo", "on_cpu": True, "vram": 6.0, "minutes": 9.0, "write": None}
    return argparse.Namespace(**{**known, "parts": tuple(each.name for each in PARTS), **more})


def command(code: str) -> Sequence[str]:
    """Return what runs this code in place of a part."""
    body = textwrap.indent(code, "  ")
    return (sys.executable, "-c", f"{READS}{body}\nprocess.carry_out(work)")


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / suite.RESULTS).read_text(encoding="utf-8"))["parts"]
    return found


def test_every_part_runs_in_order_and_is_written(tmp_path, capsys):
    """Results, page and log are there, and nothing else; all is well with code 0."""
    code = "print('working on', name); tell(table=[['a'], ['1']], notes=['Look.'])"
    assert Suite(given(), tmp_path / "out", command=command(code)).run() == 0
    assert list(results(tmp_path / "out")) == [each.name for each in PARTS]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {suite.RESULTS, suite.SHOWN, suite.LOG}
    text = (tmp_path / "out" / suite.SHOWN).read_text(encoding="utf-8")
    assert text.count("- Look.") == len(PARTS)
    log = (tmp_path / "out" / suite.LOG).read_text(encoding="utf-8")
    assert "working on parity" in log
    said = capsys.readouterr()
    assert said.out == text + "\n"
    assert [line.partition(",")[0] for line in said.err.splitlines()] == [
        f"{each.name}: done" for each in PARTS
    ]


def test_the_page_of_the_documentation_gets_the_figures(tmp_path):
    """In place of those before; what is around them stays."""
    page = tmp_path / "card.md"
    page.write_text("Before.\n<!-- card: figures -->\nold\n<!-- /card -->\nAfter.\n")
    out, well = tmp_path / "out", command("tell(notes=['Look.'])")
    assert Suite(given(write=page, parts=()), out, command=well).run() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "- Look." in text
    assert "old" not in text


def test_parts_that_are_not_asked_for_do_not_run(tmp_path):
    """The machine is always looked at: the figures of the others hang on it."""
    assert Suite(given(parts=("parity",)), tmp_path, command=command("tell(notes=[''])")).run() == 0
    assert list(results(tmp_path)) == ["machine", "parity"]


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("tell(failure='no image')", "no image"),
        ("sys.exit(3)", "exit code 3: without a word"),
        ("sys.exit('no more')", "exit code 1: no more"),
        ("tell(notes=['so far']); os.kill(os.getpid(), 9)", process.KILLED),
        ("os.close(0); sys.exit(4)", "exit code 4: without a word"),
    ],
)
def test_a_part_that_fails_does_not_stop_the_others(code: str, failure: str, tmp_path):
    """Its line says why, what it told before stays, and the exit code is 1."""
    whole = f"if name == 'rows':\n  {code}\nelse:\n  tell(notes=['well'])"
    assert Suite(given(), tmp_path, command=command(whole)).run() == 1
    found = results(tmp_path)
    assert found["rows"]["failure"] == failure
    assert found["rows"]["notes"] == (["so far"] if "so far" in code else [])
    assert found["parity"]["notes"] == ["well"]
    assert "**Failed:**" in (tmp_path / suite.SHOWN).read_text(encoding="utf-8")


def test_a_part_that_hangs_is_cut_off_with_all_that_it_started(tmp_path):
    """Its time is what later parts leave; they run, and its children are gone."""
    code = (
        "import subprocess, signal\n"
        "if name == 'batches':\n"
        "  other = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "  tell(figures={'pid': other.pid}); signal.pause()\n"
        "tell(notes=['well'])"
    )
    minutes = (suite.MARGIN_SECONDS + 6) / 60
    assert Suite(given(minutes=minutes), tmp_path, command=command(code)).run() == 1
    found = results(tmp_path)
    assert found["batches"]["failure"].startswith("cut off after")
    assert found["parity"]["notes"] == ["well"]
    assert not running(found["batches"]["figures"]["pid"])


def running(pid: int) -> bool:
    """Tell whether a process is there that has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_no_part_begins_without_time(tmp_path):
    """It is told as not run; the time of others is not touched."""
    done = Suite(given(minutes=0.1), tmp_path, command=command("tell(notes=['well'])"))
    assert done.run() == 1
    assert {each["failure"] for each in results(tmp_path).values()} == {"not run: no time was left"}


def test_without_a_gpu_there_is_one_line_and_no_result(tmp_path, capsys):
    """The first part says so, with the exit code of that."""
    code = f"tell(failure='no GPU.', figures={{'exit': {int(Exit.GPU_MISSING)}}})"
    assert Suite(given(), tmp_path, command=command(code)).run() == Exit.GPU_MISSING
    assert capsys.readouterr().err == "benchmark_card: no GPU.\n"
    assert {path.name for path in tmp_path.iterdir()} == {suite.LOG}


def test_a_run_that_is_killed_leaves_what_it_has_and_nobody_working(tmp_path):
    """What a part has told is written while it runs; the part ends with who started it."""
    code = (
        "import argparse, sys\n"
        "from pathlib import Path\n"
        "from scripts.cards.suite.run import Suite\n"
        f"given = argparse.Namespace(**{vars(given())!r})\n"
        f"Suite(given, Path({str(tmp_path)!r}), command={tuple(lingering())!r}).run()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as started:
        try:
            while not (tmp_path / suite.RESULTS).exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"it ended with {started.wait(0.05)}")
            pid = results(tmp_path)["machine"]["figures"]["pid"]
            assert running(pid)
        finally:
            started.kill()
        assert started.wait() == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(60)
    found = results(tmp_path)["machine"]
    assert (found["notes"], found["failure"]) == (["half"], suite.UNFINISHED)


def lingering() -> Sequence[str]:
    """Return a part that tells half, and then only waits for the end of who started it."""
    code = "import signal\ntell(notes=['half'], figures={'pid': os.getpid()}); signal.pause()"
    return command(code)


def task(folder: Path, **more: Any) -> Task:
    known = {"part": "rows", "model": "demo", "on_cpu": True, "vram": 6.0}
    return Task(**{**known, "seconds": 5.0, "folder": str(folder), **more})


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RuntimeError("first line\nsecond"), "RuntimeError: first line"),
        (KeyError(), "KeyError"),
        (GpuMissing("no GPU"), "no GPU"),
    ],
)
def test_an_error_of_a_part_is_its_failure(error, failure: str, monkeypatch, tmp_path):
    """In one line, after what it had told; only an error of the service has an exit code."""

    class Broken:
        @staticmethod
        def run(_given: Task, tell: Any) -> None:
            tell(Report(notes=["so far"]))
            raise error

    monkeypatch.setattr(importlib, "import_module", lambda _: Broken)
    told: list[Report] = []
    part.carry_out(task(tmp_path), told.append)
    found = told[-1]
    assert (found.failure, found.notes) == (failure, ["so far"])
    assert found.figures == ({"exit": 71} if isinstance(error, GpuMissing) else {})


def test_every_part_has_a_module():
    """Whatever is in the list can be run."""
    for each in PARTS:
        assert util.find_spec(f"scripts.cards.suite.{each.name}")


def test_the_parts_fit_into_the_time():
    """What is kept for all of them leaves the end of the suite."""
    kept = sum(each.seconds for each in PARTS)
    assert kept + suite.MARGIN_SECONDS <= 9 * 60


def test_a_report_crosses_as_it_is():
    """JSON and back."""
    report = Report(notes=["a"], figures={"b": 1})
    report.fail("")
    report.fail("c")
    report.fail("d")
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert report.failure == "c; d"
