"""The page of a run: what it keeps, what it shows, and what it refuses to overwrite."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import benchmark_card
from scripts.cards import images
from scripts.cards.suite import run as page
from scripts.cards.suite import wheels
from scripts.written import filled
from service.cli.exits import Exit


@pytest.fixture(autouse=True)
def _everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be unpacked: a test's Python may lack torch, and needs none."""
    monkeypatch.setattr(wheels, "missing", list)


def result(measured: str, **part: Any) -> dict[str, Any]:
    known = {
        "title": "Rows",
        "seconds": 12.3,
        "table": [["a", "b"], ["1|2", "3"]],
        "notes": ["Look."],
    }
    return {"measured": measured, "parts": {"rows": {**known, "failure": "", **part}}}


def test_the_page_shows_a_run():
    """Where it was, then each part with its table, its notes and its time."""
    assert page.section(result("On a card.")) == (
        "On a card.\n\n### Rows\n\n| a   | b   |\n| --- | --- |\n| 1/2 | 3   |\n\n- Look.\n\n12 s."
    )


def test_a_part_that_failed_says_why_and_keeps_what_it_had():
    """Its table and notes are there, or nothing is if it had nothing."""
    text = page.section(result("Here.", failure="cut off after 60 s"))
    assert "| 1/2 | 3   |" in text
    assert text.endswith("**Failed:** cut off after 60 s. 12 s.")
    empty = page.section(result("Here.", failure="not run", table=[], notes=[]))
    assert empty == "Here.\n\n### Rows\n\n**Failed:** not run. 12 s."


def test_where_results_cannot_be_written_nothing_is_measured(monkeypatch, capsys):
    """Before minutes of work, in one line: the page, and the folder of results."""
    monkeypatch.setattr(benchmark_card, "PAGE", Path("/proc/card.md"))
    assert benchmark_card.main(["--write"]) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert "--write /proc/card.md: cannot be written" in line
    monkeypatch.setenv("OUT", "/proc/nowhere")
    assert benchmark_card.main(["--on-cpu"]) == Exit.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "/proc/nowhere" in line


def test_what_a_cpu_showed_does_not_replace_what_a_gpu_showed(capsys):
    """The page of the documentation is of a card."""
    assert benchmark_card.main(["--on-cpu", "--write"]) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert "leave out --on-cpu" in line


def test_the_page_has_a_place_for_the_figures():
    """One block, whose lines --write replaces."""
    text = benchmark_card.PAGE.read_text(encoding="utf-8")
    new = filled(text, lambda kind, name: [f"{kind} {name}"])
    assert new.count("card figures") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vram", "0"], "--vram 0: must be 1 or more."),
        (["--vram", "nan"], "--vram nan: must be 1 or more."),
        (["--minutes", "inf"], "--minutes inf: must be 0.1 or more."),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str, capsys: Any):
    """It names the argument and the limit."""
    assert benchmark_card.main(arguments) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(said)


def test_a_part_that_is_none_is_refused(capsys: Any):
    """The line names the parts that there are."""
    with pytest.raises(SystemExit):
        benchmark_card.main(["--parts", "rows,speed"])
    assert "speed: not of machine, rows, shortage" in capsys.readouterr().err


def test_the_first_image_of_each_folder_is_shown(tmp_path):
    """On one sheet with its folder's name, four in a line; without images there is no sheet."""
    images.sheet(tmp_path, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
    for name in "abcde":
        (tmp_path / name).mkdir()
        Image.new("RGB", (512, 256), "red").save(tmp_path / name / "1.png")
    images.sheet(tmp_path, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        cell, label = images.CELL, images.LABEL
        assert sheet.size == (4 * cell, 2 * (cell + label))
        assert sheet.getpixel((10, label + 10)) == (255, 0, 0)
        assert sheet.getpixel((10, label + cell - 10)) == (255, 255, 255)
