"""Two contenders on one card: whose turn it is, what the table says, what the page keeps."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from scripts import benchmark_card
from scripts.cards import child, page, versus, watch
from scripts.cards.order import ENGINE, PIPELINE, Measured, Order, measured_from, to_json
from scripts.cards.pictures import Difference
from scripts.cards.versus import ROWS, Duel
from service.exits import Exit

GIB = 2**30


def measured(seconds: float, **more: Any) -> Measured:
    """Return a turn on a GPU that made pictures."""
    known = {"device": "GTX 1060", "gpu": True, "dtype": "float16", "process": 3 * GIB}
    return Measured(seconds=(seconds, seconds + 1), **{**known, **more})


def duel(ours: Measured, theirs: Measured) -> Duel:
    """Return one row in which each had one turn."""
    gap = Difference(mean=0.25, largest=2, psnr=50.0)
    return Duel(row=ROWS[0], runs={ENGINE: [ours], PIPELINE: [theirs]}, gap=gap)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """Stand in for the measuring processes; return their orders, in order."""
    orders: list[Order] = []

    def run(order: Order, _settings: object, *, limit_seconds: float) -> Measured:
        assert limit_seconds > versus.OVERTIME_SECONDS
        orders.append(order)
        too_much = order.contender == PIPELINE and order.width * order.height > 768 * 512
        return Measured(failure="out of memory") if too_much else measured(2.0)

    monkeypatch.setattr(versus, "run", run)
    return orders


def turns(folder: Path, *, ends: float = float("inf")) -> list[Duel]:
    return list(
        versus.turns(ROWS, {}, rounds=2, pictures=3, folder=folder, ends=ends, ran=lambda *_: None)
    )


def test_contenders_take_turns(took, tmp_path):
    """Every row once, then again with the other one first; who failed is not asked again."""
    duels = turns(tmp_path)
    said = [(order.width, order.height, order.contender) for order in took]
    assert said == [
        *((512, 512, ENGINE), (512, 512, PIPELINE), (768, 512, ENGINE), (768, 512, PIPELINE)),
        *((768, 768, ENGINE), (768, 768, PIPELINE)),
        *((512, 512, PIPELINE), (512, 512, ENGINE), (768, 512, PIPELINE), (768, 512, ENGINE)),
        (768, 768, ENGINE),
    ]
    assert [each.ratio for each in duels] == [1.0, 1.0, None]
    assert "out of memory" in versus.table(duels, gpu=True).splitlines()[-1]


def test_no_turn_begins_after_the_time(took, tmp_path):
    """A machine that is lent for minutes gets no turn that it cannot end."""
    duels = turns(tmp_path, ends=0)
    assert took == []
    assert all(each.failure(ENGINE) == "not run" for each in duels)


def test_no_turn_begins_that_would_be_cut_off(monkeypatch, tmp_path):
    """It would count as a failure, and take the figures of the turns before with it."""
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(versus, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(versus, "run", lambda *_, limit_seconds: measured(limit_seconds))
    # Each turn takes 50 s; so does the way to the next one.
    (only,) = versus.turns(
        ROWS[:1], {}, rounds=9, pictures=1, folder=tmp_path, ends=395, ran=lambda *_: None
    )
    assert [len(only.runs[name]) for name in (ENGINE, PIPELINE)] == [2, 2]
    seconds = [each.seconds[0] for each in only.runs[PIPELINE]]
    assert seconds == [395 + 60 - 100, 395 + 60 - 200]
    assert only.ratio is not None


def test_the_table_has_seconds_ratio_and_memory():
    """Medians over all pictures, the ratio of the two, and each one's memory."""
    ours = measured(8.0, reserved=int(2.9 * GIB), allocated=int(2.5 * GIB))
    head, _, row = versus.table([duel(ours, measured(16.5))], gpu=True).splitlines()
    assert head.count("|") == row.count("|")
    assert row == (
        "| 512x512, 20 steps | 8.50 | 17.00 | 0.50 | 3.00 | 3.00 | 2.90 and - | 2.50 and - | 0.25 |"
    )
    on_cpu = duel(measured(8.0, gpu=False, host=GIB), measured(8.0, gpu=False, host=2 * GIB))
    assert versus.table([on_cpu], gpu=False).splitlines()[-1].endswith("| 1.00 | 2.00 | 0.25 |")


def test_what_a_reader_must_know_is_said():
    """A process above the cap, memory that ran out, a driver that names no process."""
    above = measured(8.0, process=int(6.2 * GIB), process_by="card", rungs=("denoise: free_cache",))
    said = versus.notes([duel(above, measured(8.0))], 6.0)
    assert "a process took 6.20 GB, above the limit of 6" in said[0]
    assert "memory ran out (denoise: free_cache)" in said[1]
    assert "what the card's use grew by" in said[2]
    assert versus.notes([duel(measured(8.0), measured(8.0))], 6.0) == []


def test_the_page_keeps_both_kinds(tmp_path):
    """What a GPU showed stays when a CPU is measured, and what is missing is told."""
    result = {"measured": "On a card.", "table": "| a |", "notes": ["Look."]}
    page.write(tmp_path, "gpu", result)
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "On a card.\n\n| a |\n\nLook." in text
    assert text.endswith(f"{page.NOT_YET['cpu']}\n")
    assert page.NOT_YET["gpu"] not in text
    page.write(tmp_path, "cpu", {**result, "measured": "On a CPU."})
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "On a card." in text
    assert "On a CPU." in text
    assert page.NOT_YET["cpu"] not in text
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")).keys() == {
        *("gpu", "cpu")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"card.md", "card.json"}


@pytest.mark.parametrize("text", ["", "[1]", '{"gpu": {"measured": "x"}}'])
def test_results_that_are_none_are_told_before_anything_is_measured(
    text: str, tmp_path, monkeypatch, capsys
):
    """A file that is no JSON, or of something else, is not replaced and not tripped over."""
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(benchmark_card, "DOCS", tmp_path)
    assert benchmark_card.main(["--on-cpu", "--write"]) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert "card.json does not hold results of this benchmark; remove it." in line


def test_where_results_cannot_be_written_nothing_is_measured(monkeypatch, capsys):
    """Before minutes of work, in one line."""
    monkeypatch.setattr(benchmark_card, "DOCS", Path("/proc"))
    assert benchmark_card.main(["--on-cpu", "--write"]) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert "--write /proc/card.json: cannot be written" in line


def test_a_model_that_both_cannot_read_is_told(tmp_path, capsys):
    """One that is not here, and one in a single file, which the plain pipeline does not take."""
    assert benchmark_card.main(["--on-cpu", "--model", "some/where"]) == Exit.MODEL_MISSING
    assert "--model some/where: is not in" in capsys.readouterr().err
    file = tmp_path / "model.safetensors"
    file.touch()
    assert benchmark_card.main(["--on-cpu", "--model", str(file)]) == Exit.SETTING
    assert "is a single file; name a folder" in capsys.readouterr().err


def test_the_page_is_what_its_results_say():
    """docs/card.md shows docs/card.json, by hand in neither."""
    kept = json.loads((benchmark_card.DOCS / "card.json").read_text(encoding="utf-8"))
    assert (benchmark_card.DOCS / "card.md").read_text(encoding="utf-8") == page.page(kept)


def test_a_measuring_process_has_the_settings_that_are_tried_and_no_other(monkeypatch):
    """What the caller's shell sets for its service does not change what is measured."""
    monkeypatch.setenv("ATTENTION_SLICING", "true")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    given = child.environment({"DTYPE": "float16"})
    assert "ATTENTION_SLICING" not in given
    assert (given["DTYPE"], given["CUDA_VISIBLE_DEVICES"]) == ("float16", "1")
    assert given["PATH"] == os.environ["PATH"]


def test_a_process_that_ends_without_an_answer_is_told(monkeypatch, tmp_path):
    """Its exit code and its last words are the result; one that hangs is ended."""
    order = Order(contender=ENGINE, width=64, height=64, steps=1, rounds=1)
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
    assert child.run(order, {}).failure == "exit code 1: no more"
    monkeypatch.chdir(tmp_path / "hangs")
    assert child.run(order, {}, limit_seconds=0.5).failure == "no end within 0.5 s"


def test_what_measures_ends_with_what_started_it(tmp_path):
    """A container's end, or that of a job's time, leaves no process on the card."""
    package = tmp_path / "scripts" / "cards"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "work.py").write_text(
        "import os, signal\n"
        "with open('pid.new', 'w') as file:\n    file.write(str(os.getpid()))\n"
        "os.rename('pid.new', 'pid')\nsignal.pause()\n",
        encoding="utf-8",
    )
    root = str(Path(benchmark_card.__file__).parents[1])
    code = (
        f"import sys; sys.path[0] = {root!r}\n"
        "from scripts import benchmark_card\n"
        "sys.exit(benchmark_card.main(['--on-cpu', '--model', 'demo']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as started:
        try:
            while not (tmp_path / "pid").exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"it ended with {started.wait(0.05)}")
            pid = int((tmp_path / "pid").read_text())
            assert psutil.pid_exists(pid)
        finally:
            started.terminate()
        assert started.wait() == 128 + signal.SIGTERM
    assert not psutil.pid_exists(pid)


def test_a_result_crosses_as_it_is():
    """JSON and back."""
    assert measured_from(to_json(measured(1.0, rungs=("a", "b")))) == measured(
        1.0, rungs=("a", "b")
    )


def test_the_drivers_figure_of_a_process_is_the_one(monkeypatch):
    """Where the driver names no process, what the card's use grew by stands for it."""
    used = iter([1 * GIB, 4 * GIB, 5 * GIB, 1 * GIB, 4 * GIB])
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=next(used))
    )
    running = [SimpleNamespace(pid=7, usedGpuMemory=2 * GIB)]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda _: running)
    seen = watch.Watch(object())
    seen.look(7)
    running[0].usedGpuMemory = GIB
    seen.look(7)
    assert (seen.most, seen.by) == (2 * GIB, "process")
    other = watch.Watch(object())
    other.look(8)
    assert (other.most, other.by) == (3 * GIB, "card")
    blind = watch.Watch(None)
    blind.look(7)
    assert (blind.most, blind.by) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vram", "0"], "--vram 0: must be 1 or more."),
        (["--rounds", "0"], "--rounds 0: must be 1 or more."),
        (["--steps", "0"], "--steps 0: must be 1 or more."),
        (["--vram", "nan"], "--vram nan: must be 1 or more."),
        (["--minutes", "inf"], "--minutes inf: must be 0.1 or more."),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, capsys: Any):
    """It names the argument and the limit."""
    assert benchmark_card.main(arguments) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(said)


@pytest.mark.parametrize("text", ["512x512", "500x512/20", "512x500/20", "512x512/0", "axb/c"])
def test_a_row_that_is_none_is_refused(text: str, capsys: Any):
    """Size and steps, as in 512x512/20."""
    with pytest.raises(SystemExit):
        benchmark_card.main(["--rows", text])
    assert "--rows" in capsys.readouterr().err
