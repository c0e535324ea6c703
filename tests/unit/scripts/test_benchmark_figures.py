"""What a benchmark makes of its answers: percentiles, throughput, ratios and tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import benchmark_performance
from scripts.benchmark import report
from scripts.benchmark.course import Outcome
from scripts.benchmark.load import Answer, Turn
from scripts.benchmark.machine import line as described
from scripts.benchmark.machine import machine
from scripts.benchmark.report import P50, RATE, figures, ratio
from scripts.benchmark.rows import BenchmarkError, Point, Row, pair, row

DOCUMENT = Path(__file__).parents[3] / "docs" / "performance.md"
SMALL, LARGE = row("256x256/4"), row("512x512/20")
STEADY = Point(rows=(SMALL,), clients=2)
MIXED = Point(rows=(SMALL, LARGE), clients=4)
HEALTH = {
    "model": {"id": "demo", "device": "cpu", "dtype": "float32"},
    "version": "1.2",
}


def answer(seconds: float, of: Row = SMALL, **more: Any) -> Answer:
    return Answer(row=of, seconds=seconds, ended=seconds, **more)


def turn(*answers: Answer, seconds: float = 10.0) -> Turn:
    return Turn(answers=answers, seconds=seconds)


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


def found(outcome: Outcome, computer: dict[str, Any] | None = None) -> dict[str, Any]:
    return report.json(outcome, computer or machine(HEALTH))


def line(table: str, *starts: str) -> list[str]:
    """Return the cells of the one line whose first cells are these."""
    lines = [[cell.strip() for cell in text.split("|")[1:-1]] for text in table.splitlines()]
    (found,) = [cells for cells in lines if tuple(cells[: len(starts)]) == starts]
    return found


def test_a_percentile_lies_between_its_neighbours():
    """In whatever order the values come."""
    of = figures([turn(*map(answer, (4.0, 1.0, 3.0, 2.0)))])
    assert (of["p50"], of["longest"]) == (2.5, 4.0)
    assert of["p95"] == pytest.approx(3.85)


def test_a_single_value_is_every_percentile():
    """Of one there is no other to look at; without any, nothing took time."""
    of = figures([turn(answer(7.0))])
    assert (of["p50"], of["p95"]) == (7.0, 7.0)
    assert figures([])["p95"] == 0.0


def test_only_images_count_for_time_and_throughput():
    """What was answered without an image is counted by what it was."""
    of = figures([turn(answer(1.0), answer(3.0), answer(0.1, fault="503 queue_full"))] * 2)
    assert (of["asked"], of["answered"]) == (6, 4)
    assert of["faults"] == {"503 queue_full": 2}
    assert (of["mean"], of["p50"], of["longest"]) == (2.0, 2.0, 3.0)
    assert of["images_per_second"] == pytest.approx(4 / 20)
    assert of["steps_per_second"] == pytest.approx(16 / 20)


def test_a_turn_without_an_image_has_no_time():
    """Nothing is divided by zero, and no ratio comes of it."""
    nothing = turn(answer(0.1, fault="500 internal_error"))
    assert figures([nothing])[RATE] == 0
    assert ratio([nothing], [turn(answer(1.0))], P50) is None
    assert ratio([turn(answer(1.0))], [nothing], P50) is None


def test_a_ratio_is_that_of_the_same_round():
    """A machine that is slow for both in one round changes nothing."""
    turns = compared().turns[STEADY]
    ours, theirs = turns["service"], turns["plain diffusers"]
    assert ratio(ours, theirs, P50) == pytest.approx(0.5)
    assert ratio(ours, theirs, RATE) == pytest.approx(2.0)
    assert ratio(ours, theirs, P50, LARGE) is None
    # What disturbed one of them alone does not move the median.
    hit = [*theirs[:2], turn(answer(400.0), seconds=400.0)]
    assert ratio(ours, hit, P50) == pytest.approx(0.5)


def test_the_table_has_a_line_for_each_row_clients_and_server():
    """Images, seconds and rates in their columns."""
    text = report.tables(found(compared()))
    service = line(text, "256x256/4", "2", "service")
    assert service[3:] == ["5", "2.00", "16.40", "20.00", "5.20", "0.18", "0.7"]
    assert line(text, "256x256/4", "2", "plain diffusers")[3] == "5"


def test_short_and_long_requests_are_told_apart():
    """A mixed load is one line for each kind and server."""
    text = report.tables(found(compared()))
    assert line(text, "short, 256x256/4", "plain diffusers")[3] == "8.00"
    assert line(text, "long, 512x512/20", "plain diffusers")[3] == "6.00"


def test_the_service_alone_has_no_ratios():
    """One server, one line, nothing to compare."""
    outcome = Outcome(servers=("service",), rounds=1)
    outcome.turns[STEADY] = {"service": [turn(answer(1.0))]}
    assert "÷" not in report.text(found(outcome))
    assert line(report.summary(found(outcome)), "256x256/4, 2 clients") == [
        *("256x256/4, 2 clients", "1.00", "0.10"),
    ]


def test_the_short_table_has_what_the_service_is_to_the_others():
    """Latency of both kinds; throughput where all ask for the same."""
    text = report.summary(found(compared()))
    assert line(text, "256x256/4, 2 clients")[1:] == ["2.00", "0.18", "0.50", "2.00"]
    assert line(text, "256x256/4, with 512x512/20")[1:] == ["1.00", "0.10", "0.12", ""]
    assert line(text, "512x512/20, with 256x256/4")[1:] == ["9.00", "0.10", "1.50", ""]
    assert text in report.text(found(compared()))


def test_answers_without_an_image_are_shown():
    """By load, server, status and code; those that were heeded, too."""
    outcome = Outcome(servers=("service",), rounds=1)
    heeded = answer(1.0, refusals=["503 queue_full"] * 3)
    turns = [turn(heeded, answer(0.1, fault="500 internal_error"))]
    outcome.turns[STEADY] = {"service": turns}
    text = report.tables(found(outcome))
    assert line(text, "256x256/4", "2", "service")[3] == "1 of 2"
    assert line(text, "256x256/4, 2 clients", "service", "500 internal_error")[-1] == "1"
    assert line(text, "256x256/4, 2 clients", "service", "503 queue_full, heeded")[-1] == "3"
    assert report.faults(found(outcome)) == 1


def test_the_file_has_every_latency_and_the_machine():
    """As JSON: enough to draw or judge it anew."""
    computer = machine(HEALTH, threads=2, batch=3)
    read = json.loads(json.dumps(found(compared(), computer)))
    steady, mixed = read["points"]
    plain = steady["servers"][1]
    assert plain["all"]["service_divided_by_this"]["p50"] == pytest.approx(0.5)
    assert [each["seconds"] for each in plain["rounds"][0]["answers"]] == [2.0, 4.0]
    assert mixed["servers"][0]["short"]["p50"] == 1.0
    assert read["machine"]["device"] == "cpu"
    assert read["machine"]["threads"] == 2


def test_a_service_elsewhere_is_described_by_what_it_tells():
    """The cores and packages of this machine say nothing about it."""
    assert described(machine(HEALTH)) == "device cpu, model demo in float32, service 1.2"
    assert "unknown" in described(machine({}))


@pytest.mark.parametrize("text", ["512", "512x512", "512x512/0", "0x512/4", "512x512/4,", "axb/c"])
def test_a_row_of_another_form_is_refused(text):
    """The error says what one looks like."""
    with pytest.raises(BenchmarkError, match="512x512/20"):
        [row(part) for part in text.split(",")]


@pytest.mark.parametrize("text", ["256x256/4", "512x512/20+256x256/4", "256x256/4+256x256/4"])
def test_a_mixture_is_a_short_and_a_long_row(text):
    """In this order."""
    with pytest.raises(BenchmarkError, match="SHORT"):
        pair(text)


def test_the_document_has_the_figures_of_the_run():
    """Command, machine, summary and tables take the place of others; all else stays."""
    old = DOCUMENT.read_text(encoding="utf-8")
    run = found(compared(), machine(HEALTH, threads=2, batch=5))
    text = benchmark_performance.document(old, run, "python some/script.py")
    assert report.summary(run) in text
    assert report.tables(run) in text
    assert "`python some/script.py`, written by the command itself." in text
    assert "MAX_CONCURRENT_REQUESTS=5" in text
    assert "3 rounds" in text
    assert "(performance.png)" in text
    assert text.partition("## Comparison")[2] == old.partition("## Comparison")[2] != ""
