"""Two contenders on one card: whose turn it is, what the table says, and their processes."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pynvml
import pytest

from scripts.benchmark.rows import Row, rows
from scripts.cards import measure
from scripts.cards.images import Difference
from scripts.cards.measure import ENGINE, PIPELINE, Measured, Order
from scripts.cards.suite import rows as versus
from scripts.cards.suite.parts import Report, Task
from scripts.cards.suite.rows import Duel

GIB = 2**30
ROWS = rows("512x512/20,768x512/25,768x768/30")
NOWHERE = {ENGINE: Path("nowhere"), PIPELINE: Path("nowhere")}


def measured(seconds: float, **more: Any) -> Measured:
    """Return a turn on a GPU that made images."""
    known = {"device": "GTX 1060", "gpu": True, "dtype": "float16", "process": 3 * GIB}
    return Measured(seconds=(seconds, seconds + 1), **{**known, **more})


def duel(ours: Measured, theirs: Measured) -> Duel:
    """Return one row in which each had one turn."""
    gap = Difference(mean=0.25, largest=2, psnr=50.0, within_one=0.999879)
    runs = {ENGINE: [ours], PIPELINE: [theirs]}
    return Duel(row=ROWS[0], folders=NOWHERE, runs=runs, gap=gap)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """Stand in for the measuring processes; return their orders, in order."""
    orders: list[Order] = []

    def run(order: Order, _settings: object, *, seconds: float) -> Measured:
        assert seconds > 0
        orders.append(order)
        too_much = order.contender == PIPELINE and order.row.width * order.row.height > 768 * 512
        return Measured(failure="out of memory") if too_much else measured(2.0)

    monkeypatch.setattr(versus, "measure", run)
    return orders


def turns(*, ends: float, wanted: Sequence[Row] = ROWS) -> list[Duel]:
    duels = [Duel(row=row, folders=NOWHERE) for row in wanted]
    versus.turns(duels, {}, kind="gpu", ends=ends, ran=lambda *_: None)
    return duels


def test_contenders_take_turns(took):
    """Every row once, then again with the other one first; who failed is not asked again."""
    duels = turns(ends=1e12)
    said = [(order.row.width, order.row.height, order.contender) for order in took]
    assert said == [
        *((512, 512, ENGINE), (512, 512, PIPELINE), (768, 512, ENGINE), (768, 512, PIPELINE)),
        *((768, 768, ENGINE), (768, 768, PIPELINE)),
        *((512, 512, PIPELINE), (512, 512, ENGINE), (768, 512, PIPELINE), (768, 512, ENGINE)),
        (768, 768, ENGINE),
    ]
    assert [each.ratio for each in duels] == [1.0, 1.0, None]
    assert "out of memory" in versus.table(duels, gpu=True)[-1]


def test_no_turn_begins_after_the_time(took):
    """A machine that is lent for minutes gets no turn that it cannot end."""
    duels = turns(ends=0)
    assert took == []
    assert all(each.failure(ENGINE) == "not run" for each in duels)


def test_no_turn_begins_that_would_be_cut_off(monkeypatch):
    """It would count as a failure, and take the figures of the turns before with it."""
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(versus, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(versus, "measure", lambda *_, seconds: measured(seconds))
    monkeypatch.setitem(versus.ROUNDS, "gpu", 9)
    # Each turn takes 50 s; so does the way to the next one.
    (only,) = turns(ends=480, wanted=ROWS[:1])
    assert [len(only.runs[name]) for name in (ENGINE, PIPELINE)] == [2, 2]
    assert [each.seconds[0] for each in only.runs[PIPELINE]] == [480 - 150, 480 - 250]
    assert only.ratio is not None


@pytest.mark.usefixtures("took")
def test_each_turn_is_told_with_what_is_still_missing(monkeypatch, tmp_path):
    """A part that is cut off keeps the turns before; who failed or never ran is its failure."""
    monkeypatch.setitem(versus.ROWS, "gpu", (ROWS[0], ROWS[2]))
    monkeypatch.setitem(versus.ROUNDS, "gpu", 1)
    given = Task(
        part="rows",
        folder=str(tmp_path),
        model="demo",
        on_cpu=False,
        vram=6,
        seconds=1e6,
    )
    told: list[Report] = []
    versus.run(given, told.append)
    assert len(told) == 5
    assert "512x512, 20 steps, pipeline: not run" in told[0].failure
    assert told[-1].failure == "768x768, 30 steps, pipeline: out of memory"
    assert [row[4] for row in told[-1].table[1:]] == ["1.00", "-"]


def test_the_table_has_seconds_ratio_and_memory():
    """Medians over all images, the ratio of the two, and each one's memory."""
    ours = measured(8.0, reserved=int(2.9 * GIB), allocated=int(2.5 * GIB))
    head, row = versus.table([duel(ours, measured(16.5))], gpu=True)
    assert len(head) == len(row)
    assert row == [
        *("512x512, 20 steps", "1", "8.500", "17.000", "0.50", "3.00", "3.00"),
        *("2.90 and -", "2.50 and -", "99.987 %", "0.25"),
    ]
    on_cpu = duel(measured(8.0, gpu=False, host=GIB), measured(8.0, gpu=False, host=2 * GIB))
    assert versus.table([on_cpu], gpu=False)[-1][5:] == ["1.00", "2.00", "99.987 %", "0.25"]


def test_what_a_reader_must_know_is_said():
    """A process above the cap, memory that ran out, a driver that names no process."""
    above = measured(8.0, process=int(6.2 * GIB), process_by="card", rungs=("denoise: free_cache",))
    said = versus.notes([duel(above, measured(8.0))], 6.0)
    assert "a process took 6.20 GB, above the limit of 6" in said[0]
    assert "memory ran out (denoise: free_cache)" in said[1]
    assert "what the card's use grew by" in said[2]
    assert versus.notes([duel(measured(8.0), measured(8.0))], 6.0) == []


def test_a_measuring_process_has_the_settings_that_are_tried_and_no_other(monkeypatch):
    """What the caller's shell sets for its service does not change what is measured."""
    monkeypatch.setenv("ATTENTION_SLICING", "true")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    given = measure.environment({"DTYPE": "float16"})
    assert "ATTENTION_SLICING" not in given
    assert (given["DTYPE"], given["CUDA_VISIBLE_DEVICES"]) == ("float16", "1")
    assert given["PATH"] == os.environ["PATH"]


def test_a_process_that_ends_without_an_answer_is_told(monkeypatch, tmp_path):
    """Its exit code and its last words are the result; one that hangs is ended."""
    order = Order(contender=ENGINE, row=ROWS[0], rounds=1)
    for name, code in {
        "quits": "raise SystemExit('no more')",
        "hangs": "import signal; signal.pause()",
    }.items():
        package = tmp_path / name / "scripts" / "cards"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "work.py").write_text(code, encoding="utf-8")
    # Python looks into the folder that it is started in before all others.
    monkeypatch.chdir(tmp_path / "quits")
    assert measure.run(order, {}).failure == "exit code 1: no more"
    monkeypatch.chdir(tmp_path / "hangs")
    assert measure.run(order, {}, seconds=0.5).failure == "cut off after 0.5 s"


def test_a_result_crosses_as_it_is():
    """JSON and back."""
    found = measured(1.0, rungs=("a", "b"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measured) == found


def test_the_drivers_figure_of_a_process_is_the_one(monkeypatch):
    """Where the driver names no process, what the card's use grew by stands for it."""
    used = iter([1 * GIB, 4 * GIB, 5 * GIB, 1 * GIB, 4 * GIB])
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=next(used))
    )
    running = [SimpleNamespace(pid=7, usedGpuMemory=2 * GIB)]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda _: running)
    seen = measure.Watch(object())
    seen.look(7)
    running[0].usedGpuMemory = GIB
    seen.look(7)
    assert (seen.most, seen.by) == (2 * GIB, "process")
    other = measure.Watch(object())
    other.look(8)
    assert (other.most, other.by) == (3 * GIB, "card")
    blind = measure.Watch(None)
    blind.look(7)
    assert (blind.most, blind.by) == (0, "")
