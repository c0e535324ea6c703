"""The outcome as JSON, and as tables made from that."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scripts.benchmark.course import Outcome
from scripts.benchmark.load import Turn
from scripts.benchmark.machine import line
from scripts.benchmark.rows import Point, Row
from scripts.benchmark.servers import SERVICE
from scripts.written import table

Json = dict[str, Any]
Found = Mapping[str, Any]

P50: Final = "p50"
RATE: Final = "images_per_second"
RATIO: Final = "service_divided_by_this"
PARTS: Final = ("short", "long")
TIMES: Final = {"p50, s": P50, "p95, s": "p95", "max, s": "longest", "mean, s": "mean"}


def json(outcome: Outcome, machine: Found) -> Json:
    """Return everything for a file: figures, ratios and every single latency."""
    return {
        "machine": machine,
        "servers": list(outcome.servers),
        "rounds": outcome.rounds,
        "differences": outcome.differences,
        "points": [_point(point, turns) for point, turns in outcome.turns.items()],
    }


def _point(point: Point, turns: Mapping[str, Sequence[Turn]]) -> Json:
    parts: dict[str, Row | None] = {"all": None}
    if point.mixed:
        parts |= dict(zip(PARTS, point.rows, strict=True))
    return {
        "name": point.name,
        "rows": [row.name for row in point.rows],
        "clients": point.clients,
        "servers": [
            {
                "server": server,
                **{part: _figures(turns, server, row) for part, row in parts.items()},
                "rounds": [
                    {
                        "seconds": turn.seconds,
                        "answers": [
                            {"row": each.row.name, "seconds": each.seconds, "fault": each.fault}
                            for each in turn.answers
                        ],
                    }
                    for turn in turns[server]
                ],
            }
            for server in turns
        ],
    }


def _figures(turns: Mapping[str, Sequence[Turn]], server: str, row: Row | None) -> Json:
    found = figures(turns[server], row)
    if server != SERVICE:
        ours, theirs = turns[SERVICE], turns[server]
        found[RATIO] = {name: ratio(ours, theirs, name, row) for name in (P50, RATE)}
    return found


def figures(turns: Sequence[Turn], row: Row | None = None) -> Json:
    """Put the turns of one server together, in seconds; with a row, only the answers for it."""
    answers = [each for turn in turns for each in turn.answers if row is None or each.row == row]
    good = [answer for answer in answers if not answer.fault]
    taken = [answer.seconds for answer in good] or [0.0]
    seconds = sum(turn.seconds for turn in turns) or float("inf")
    return {
        "asked": len(answers),
        "answered": len(good),
        "faults": Counter(answer.fault for answer in answers if answer.fault),
        "refusals": Counter(each for answer in answers for each in answer.refusals),
        "mean": statistics.fmean(taken),
        P50: statistics.median(taken),
        "p95": p95(taken),
        "longest": max(taken),
        RATE: len(good) / seconds,
        # Denoising steps of single images.
        "steps_per_second": sum(answer.row.steps for answer in good) / seconds,
    }


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile, interpolated between the two values around it."""
    if len(values) == 1:  # Python's own takes no single value before 3.13.
        return values[0]
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def ratio(
    ours: Sequence[Turn], theirs: Sequence[Turn], figure: str, row: Row | None = None
) -> float | None:
    """Return the median over the rounds of our figure divided by theirs; None without one.

    Both had their turn in each round, one after the other: what disturbed the machine
    disturbed both.
    """
    rounds = zip(ours, theirs, strict=True)
    pairs = [(figures([mine], row), figures([other], row)) for mine, other in rounds]
    found = [
        mine[figure] / other[figure]
        for mine, other in pairs
        if mine["answered"] and other["answered"]
    ]
    return statistics.median(found) if found else None


def text(found: Found) -> str:
    """Return all that is printed: the machine, the tables, and a comparison if there is one."""
    compared = [summary(found)] if len(found["servers"]) > 1 else []
    return "\n\n".join((line(found["machine"]), *compared, tables(found)))


def tables(found: Found) -> str:
    """Return the figures of all servers, with titles where there is more than one table."""
    return "\n\n".join((*_steady(found), *_mixed(found), *_failed(found)))


def _steady(found: Found) -> Iterator[str]:
    lines = [
        [
            *(point["rows"][0], point["clients"], each["server"], *_cells(each["all"])),
            f"{each['all']['steps_per_second']:.1f}",
        ]
        for point in found["points"]
        if len(point["rows"]) == 1
        for each in point["servers"]
    ]
    if lines:
        head = ["size/steps", "clients", "server", "images", *TIMES, "images/s", "steps/s"]
        yield table(head, lines)


def _mixed(found: Found) -> Iterator[str]:
    for point in found["points"]:
        if len(point["rows"]) == 1:
            continue
        lines = [
            [f"{part}, {row}", each["server"], *_cells(each[part])]
            for part, row in zip(PARTS, point["rows"], strict=True)
            for each in point["servers"]
        ]
        yield (
            f"Mixed load: {point['clients'] // 2} of {point['clients']} clients ask for long "
            "images without a pause, the others now and then for short ones."
        )
        yield table(["requests", "server", "images", *TIMES, "images/s"], lines)


def _cells(of: Found) -> list[str]:
    """Return how many images came, how long they took, and how many a second."""
    whole = of["answered"] == of["asked"]
    images = str(of["answered"]) if whole else f"{of['answered']} of {of['asked']}"
    times = [f"{of[name]:.2f}" if of["answered"] else "" for name in TIMES.values()]
    return [images, *times, f"{of[RATE]:.2f}"]


def _failed(found: Found) -> Iterator[str]:
    """Name every answer that was no image."""
    lines = [
        [point["name"], each["server"], f"{what}{heeded}", times]
        for point in found["points"]
        for each in point["servers"]
        for kind, heeded in (("faults", ""), ("refusals", ", heeded"))
        for what, times in each["all"][kind].items()
    ]
    if lines:
        yield "Answers without an image:"
        yield table(["load", "server", "answer", "times"], lines)


def summary(found: Found) -> str:
    """Return the service's figures, and those divided by the figures of the others."""
    lines: list[list[str]] = []
    for point in found["points"]:
        service, *others = point["servers"]
        parts = {point["name"]: "all"}
        if len(point["rows"]) > 1:
            short, long = point["rows"]
            parts = {f"{short}, with {long}": "short", f"{long}, with {short}": "long"}
        for name, part in parts.items():
            cells = [name, *(f"{service[part][figure]:.2f}" for figure in (P50, RATE))]
            for other in others:
                # Of a mixture no rate: how many of either kind are asked for is no choice.
                p50, rate = (other[part][RATIO][figure] for figure in (P50, RATE))
                ratios = p50, rate if part == "all" else None
                cells += ["" if each is None else f"{each:.2f}" for each in ratios]
            lines.append(cells)
    head = ["load", "p50, s", "images/s"]
    for server in found["servers"][1:]:
        head += [f"p50 ÷ {server}", f"images/s ÷ {server}"]
    return table(head, lines)


def faults(found: Found) -> int:
    """Return how many requests got no image."""
    every = [each["all"] for point in found["points"] for each in point["servers"]]
    return sum(of["asked"] - of["answered"] for of in every)
