"""The page of a run: what it keeps, what it shows, and what it refuses to overwrite."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts import benchmark_card
from scripts.cards import pictures
from scripts.cards.suite import page, wheels
from service.exits import Exit


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


def test_the_page_keeps_both_kinds(tmp_path):
    """What a GPU showed stays when a CPU is measured, and what is missing is told."""
    page.write(tmp_path, "gpu", result("On a card."))
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert (
        "On a card.\n\n### Rows\n\n| a | b |\n| --- | --- |\n| 1/2 | 3 |\n\n- Look.\n\n12 s."
        in text
    )
    assert text.endswith(f"{page.NOT_YET['cpu']}\n")
    page.write(tmp_path, "cpu", result("On a CPU."))
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "On a card." in text
    assert "On a CPU." in text
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")).keys() == {
        *("gpu", "cpu")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"card.md", "card.json"}


def test_a_part_that_failed_says_why_and_keeps_what_it_had():
    """Its table and notes are there, or nothing is if it had nothing."""
    text = page.section(result("Here.", failure="cut off after 60 s"))
    assert "| 1/2 | 3 |" in text
    assert text.endswith("**Failed:** cut off after 60 s. 12 s.")
    empty = page.section(result("Here.", failure="not run", table=[], notes=[]))
    assert empty == "Here.\n\n### Rows\n\n**Failed:** not run. 12 s."


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
    """Before minutes of work, in one line: the page, and the folder of results."""
    monkeypatch.setattr(benchmark_card, "DOCS", Path("/proc"))
    assert benchmark_card.main(["--on-cpu", "--write"]) == Exit.SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert "--write /proc/card.json: cannot be written" in line
    monkeypatch.setenv("OUT", "/proc/nowhere")
    assert benchmark_card.main(["--on-cpu"]) == Exit.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "/proc/nowhere" in line


def test_the_page_is_what_its_results_say():
    """docs/card.md shows docs/card.json, by hand in neither."""
    kept = json.loads((benchmark_card.DOCS / "card.json").read_text(encoding="utf-8"))
    assert (benchmark_card.DOCS / "card.md").read_text(encoding="utf-8") == page.page(kept)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vram", "0"], "--vram 0: must be 1 or more."),
        (["--rounds", "0"], "--rounds 0: must be 1 or more."),
        (["--images", "0"], "--images 0: must be 1 or more."),
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


def test_a_part_that_is_none_is_refused(capsys: Any):
    """The line names the parts that there are."""
    with pytest.raises(SystemExit):
        benchmark_card.main(["--parts", "rows,speed"])
    assert "speed: not of machine, rows, shortage" in capsys.readouterr().err


def test_the_first_image_of_each_folder_is_shown(tmp_path):
    """On one sheet with its folder's name, four in a line; without images there is no sheet."""
    pictures.sheet(tmp_path, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
    for name in "abcde":
        (tmp_path / name).mkdir()
        Image.new("RGB", (512, 256), "red").save(tmp_path / name / "1.png")
    pictures.sheet(tmp_path, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        cell, label = pictures.CELL, pictures.LABEL
        assert sheet.size == (4 * cell, 2 * (cell + label))
        assert sheet.getpixel((10, label + 10)) == (255, 0, 0)
        assert sheet.getpixel((10, label + cell - 10)) == (255, 255, 255)
