"""What a benchmark makes of its answers: percentiles, throughput, ratios and tables."""

import json
from collections import Counter
from typing import Any

import pytest

from scripts.benchmark import document, report
from scripts.benchmark.client import Answer
from scripts.benchmark.course import Outcome
from scripts.benchmark.figures import figures, percentile, ratio
from scripts.benchmark.load import Measured
from scripts.benchmark.machine import machine
from scripts.benchmark.rows import Mixed, Row, Steady, pair, row

SMALL, LARGE = row("256x256/4"), row("512x512/20")
STEADY = Steady(row=SMALL, clients=2)
MIXED = Mixed(short=SMALL, long=LARGE, clients=4)
HEALTH = {
    "model": {"id": "demo", "device": "cpu", "dtype": "float32"},
    "version": "1.2",
}


def answer(seconds: float, of: Row = SMALL, **more: Any) -> Answer:
    return Answer(row=of, seconds=seconds, ended=seconds, **more)


def turn(*answers: Answer, seconds: float = 10.0, **refusals: int) -> Measured:
    return Measured(answers=answers, refusals=Counter(refusals), seconds=seconds)


def compared() -> Outcome:
    """Return three rounds in which the service takes half the time of the plain server.

    Both were slow in the last round.
    """
    ours = [turn(answer(1.0), answer(2.0), seconds=4.0)] * 2 + [turn(answer(20.0), seconds=20.0)]
    theirs = [turn(answer(2.0), answer(4.0), seconds=8.0)] * 2 + [turn(answer(40.0), seconds=40.0)]
    outcome = Outcome(servers=("service", "plain diffusers"), rounds=3)
    outcome.turns[STEADY] = {"service": ours, "plain diffusers": theirs}
    both = turn(answer(1.0), answer(9.0, LARGE)), turn(answer(8.0), answer(6.0, LARGE))
    outcome.turns[MIXED] = {"service": [both[0]] * 3, "plain diffusers": [both[1]] * 3}
    return outcome


def line(table: str, *starts: str) -> list[str]:
    """Return the cells of the one line whose first cells are these."""
    lines = [[cell.strip() for cell in text.split("|")[1:-1]] for text in table.splitlines()]
    (found,) = [cells for cells in lines if tuple(cells[: len(starts)]) == starts]
    return found


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0), (1 / 3, 2.0)]
)
def test_a_percentile_lies_between_its_neighbours(share, expected):
    """In whatever order the values come."""
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)


def test_a_single_value_is_every_percentile():
    """Of one there is no other to look at; of none there is nothing to say."""
    assert percentile([7.0], 0.95) == 7.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_only_pictures_count_for_time_and_throughput():
    """What was answered without a picture is counted by what it was."""
    found = figures([turn(answer(1.0), answer(3.0), answer(0.1, fault="503 queue_full"))] * 2)
    assert (found.asked, found.answered) == (6, 4)
    assert found.faults == {"503 queue_full": 2}
    assert (found.mean, found.p50, found.longest) == (2.0, 2.0, 3.0)
    assert found.pictures_per_second == pytest.approx(4 / 20)
    assert found.steps_per_second == pytest.approx(16 / 20)


def test_a_turn_without_a_picture_has_no_time():
    """Nothing is divided by zero, and no ratio comes of it."""
    nothing = turn(answer(0.1, fault="500 internal_error"))
    assert figures([nothing]).pictures_per_second == 0
    assert ratio([nothing], [turn(answer(1.0))], report.p50) is None
    assert ratio([turn(answer(1.0))], [nothing], report.p50) is None


def test_a_ratio_is_that_of_the_same_round():
    """A machine that is slow for both in one round changes nothing."""
    turns = compared().turns[STEADY]
    ours, theirs = turns["service"], turns["plain diffusers"]
    assert ratio(ours, theirs, report.p50) == pytest.approx(0.5)
    assert ratio(ours, theirs, report.rate) == pytest.approx(2.0)
    assert ratio(ours, theirs, report.p50, LARGE) is None
    # What disturbed one of them alone does not move the median.
    hit = [*theirs[:2], turn(answer(400.0), seconds=400.0)]
    assert ratio(ours, hit, report.p50) == pytest.approx(0.5)


def test_the_table_has_a_line_for_each_row_clients_and_server():
    """Seconds and ratios in their columns."""
    text = report.tables(compared())
    service = line(text, "256x256/4", "2", "service")
    assert service[3:] == ["5", "2.00", "16.40", "20.00", "5.20", "0.18", "0.7", "1", "1"]
    assert line(text, "256x256/4", "2", "plain diffusers")[-2:] == ["0.50", "2.00"]


def test_short_and_long_requests_are_told_apart():
    """A mixed load is one line for each kind and server."""
    text = report.tables(compared())
    assert line(text, "short, 256x256/4", "plain diffusers")[3] == "8.00"
    assert line(text, "short, 256x256/4", "plain diffusers")[-1] == "0.12"
    assert line(text, "long, 512x512/20", "plain diffusers")[-1] == "1.50"


def test_the_service_alone_has_no_ratios():
    """One server, one line, nothing to compare."""
    outcome = Outcome(servers=("service",), rounds=1)
    outcome.turns[STEADY] = {"service": [turn(answer(1.0))]}
    assert "÷" not in report.tables(outcome)
    assert line(report.short(outcome), "256x256/4, 2 clients") == [
        *("256x256/4, 2 clients", "1.00", "0.10"),
    ]


def test_the_short_table_has_what_the_service_is_to_the_others():
    """Latency of both kinds; throughput where all ask for the same."""
    text = report.short(compared())
    assert line(text, "256x256/4, 2 clients")[1:] == ["2.00", "0.18", "0.50", "2.00"]
    assert line(text, "256x256/4, beside 512x512/20")[1:] == ["1.00", "0.10", "0.12", ""]


def test_answers_without_a_picture_are_shown():
    """By load, server, status and code; those that were heeded, too."""
    outcome = Outcome(servers=("service",), rounds=1)
    full = {"503 queue_full": 3}
    turns = [turn(answer(1.0), answer(0.1, fault="500 internal_error"), **full)]
    outcome.turns[STEADY] = {"service": turns}
    text = report.tables(outcome)
    assert line(text, "256x256/4", "2", "service")[3] == "1 of 2"
    assert line(text, "256x256/4, 2 clients", "service", "500 internal_error")[-1] == "1"
    assert line(text, "256x256/4, 2 clients", "service", "503 queue_full, heeded")[-1] == "3"
    assert report.faults(outcome) == 1


def test_the_file_has_every_latency_and_the_machine():
    """As JSON: enough to draw or judge it anew."""
    computer = machine(HEALTH, threads=2, batch=3)
    found = json.loads(json.dumps(report.json(compared(), computer)))
    steady, mixed = found["points"]
    plain = steady["servers"][1]
    assert plain["all"]["service_divided_by_this"]["p50"] == pytest.approx(0.5)
    assert [each["seconds"] for each in plain["rounds"][0]["answers"]] == [2.0, 4.0]
    assert mixed["servers"][0]["short"]["p50"] == 1.0
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["threads"] == 2


def test_a_service_elsewhere_is_described_by_what_it_tells():
    """The cores and packages of this machine say nothing about it."""
    assert str(machine(HEALTH)) == "device cpu, model demo in float32, service 1.2"
    assert "unknown" in str(machine({}))


@pytest.mark.parametrize("text", ["512", "512x512", "512x512/0", "0x512/4", "512x512/4,", "axb/c"])
def test_a_row_of_another_form_is_refused(text):
    """The error says what one looks like."""
    with pytest.raises(ValueError, match="512x512/20"):
        [row(part) for part in text.split(",")]


@pytest.mark.parametrize("text", ["256x256/4", "512x512/20+256x256/4", "256x256/4+256x256/4"])
def test_a_mixture_is_a_short_and_a_long_row(text):
    """In this order."""
    with pytest.raises(ValueError, match="SHORT"):
        pair(text)


def test_the_document_says_what_was_compared():
    """Command, tables, plot, and how the others are set up; the last only where there are some."""
    computer = machine(HEALTH, threads=2, batch=5)
    text = document.document("python scripts/benchmark_performance.py", compared(), computer)
    assert report.tables(compared()) in text
    assert "(performance.png)" in text
    assert "max_batch_size=5" in text
    alone = Outcome(servers=("service",), rounds=1)
    alone.turns[STEADY] = {"service": [turn(answer(1.0))]}
    assert "LitServe with" not in document.document("python", alone, computer)


def test_the_table_goes_to_its_place_in_the_readme(tmp_path, monkeypatch):
    """Between its marks, and nowhere else."""
    readme = tmp_path / "README.md"
    readme.write_text(document.README.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(document, "README", readme)
    monkeypatch.setattr(document, "DOCUMENT", tmp_path / "performance.md")
    before, _, after = document.BLOCK.sub("\0", readme.read_text(encoding="utf-8")).partition("\0")
    document.write("python", compared(), machine(HEALTH))
    found = readme.read_text(encoding="utf-8")
    assert found.startswith(before)
    assert found.endswith(after)
    assert report.short(compared()) in found
    assert (tmp_path / "performance.md").exists()
