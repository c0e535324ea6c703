"""The outcome as tables, and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from scripts.benchmark.course import Outcome
from scripts.benchmark.figures import Figures, figures, ratio
from scripts.benchmark.load import Measured
from scripts.benchmark.machine import Machine
from scripts.benchmark.rows import Mixed, Point, Row, Steady
from scripts.benchmark.servers import SERVICE

TIMES: Final = ("p50, s", "p95, s", "max, s", "mean, s")
RATES: Final = ("pictures/s", "steps/s")


def p50(found: Figures) -> float:
    """Return the median latency."""
    return found.p50


def rate(found: Figures) -> float:
    """Return pictures a second."""
    return found.pictures_per_second


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table whose columns stand under each other on a terminal, too."""
    cells = [[str(cell) for cell in line] for line in (head, *lines)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]
    rows = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((rows[0], rule, *rows[1:]))


def tables(outcome: Outcome) -> str:
    """Return all tables, with titles where there is more than one."""
    return "\n\n".join((*_steady(outcome), *_mixed(outcome), *_others(outcome)))


def _steady(outcome: Outcome) -> Iterator[str]:
    beside = outcome.servers[1:]
    head = ["size/steps", "clients", "server", "pictures", *TIMES, *RATES]
    if beside:
        head += ["p50, service ÷ this", "pictures/s, service ÷ this"]
    lines: list[list[object]] = []
    for point, turns in outcome.turns.items():
        if not isinstance(point, Steady):
            continue
        for server, own in turns.items():
            found = figures(own)
            line: list[object] = [point.row.name, point.clients, server, _counted(found)]
            line += [*_times(found), f"{rate(found):.2f}", f"{found.steps_per_second:.1f}"]
            if beside:
                line += [_ratio(turns, server, p50), _ratio(turns, server, rate)]
            lines.append(line)
    if lines:
        yield table(head, lines)


def _mixed(outcome: Outcome) -> Iterator[str]:
    beside = outcome.servers[1:]
    for point, turns in outcome.turns.items():
        if not isinstance(point, Mixed):
            continue
        head = ["requests", "server", "pictures", *TIMES, RATES[0]]
        if beside:
            head += ["p50, service ÷ this"]
        lines: list[list[object]] = []
        for kind, row in (("short", point.short), ("long", point.long)):
            for server, own in turns.items():
                found = figures(own, row)
                line: list[object] = [f"{kind}, {row.name}", server, _counted(found)]
                line += [*_times(found), f"{rate(found):.2f}"]
                if beside:
                    line.append(_ratio(turns, server, p50, row))
                lines.append(line)
        longs = max(1, point.clients // 2)
        yield (
            f"Mixed load: {longs} of {point.clients} clients ask for long pictures without a "
            f"pause, the others now and then for short ones.\n\n{table(head, lines)}"
        )


def _others(outcome: Outcome) -> Iterator[str]:
    """Name every answer that was no picture."""
    lines: list[list[object]] = []
    for point, turns in outcome.turns.items():
        for server, own in turns.items():
            found = figures(own)
            lines += [[point.name, server, what, times] for what, times in found.faults.items()]
            lines += [
                [point.name, server, f"{what}, heeded", times]
                for what, times in found.refusals.items()
            ]
    if lines:
        yield f"Answers without a picture:\n\n{table(['load', 'server', 'answer', 'times'], lines)}"


def short(outcome: Outcome) -> str:
    """Return one small table for the README: the service, and what it is to the others."""
    beside = outcome.servers[1:]
    head = ["load", "p50, s", "pictures/s"]
    for server in beside:
        head += [f"p50 ÷ {server}", f"pictures/s ÷ {server}"]
    lines: list[list[object]] = []
    for point, turns in outcome.turns.items():
        parts: list[tuple[str, Row | None]] = [(point.name, None)]
        if isinstance(point, Mixed):
            parts = [
                (f"{point.short.name}, beside {point.long.name}", point.short),
                (f"{point.long.name}, beside {point.short.name}", point.long),
            ]
        for name, row in parts:
            found = figures(turns[SERVICE], row)
            line: list[object] = [name, f"{found.p50:.2f}", f"{rate(found):.2f}"]
            for server in beside:
                throughput = "" if row else _ratio(turns, server, rate)
                line += [_ratio(turns, server, p50, row), throughput]
            lines.append(line)
    return table(head, lines)


def _counted(found: Figures) -> str:
    return (
        str(found.answered)
        if found.answered == found.asked
        else (f"{found.answered} of {found.asked}")
    )


def _times(found: Figures) -> list[str]:
    if not found.answered:
        return [""] * len(TIMES)
    return [f"{each:.2f}" for each in (found.p50, found.p95, found.longest, found.mean)]


def _ratio(
    turns: dict[str, list[Measured]], server: str, figure: Any, row: Row | None = None
) -> str:
    if server == SERVICE:
        return "1"
    found = ratio(turns[SERVICE], turns[server], figure, row)
    return "" if found is None else f"{found:.2f}"


def faults(outcome: Outcome) -> int:
    """Return how many requests got no picture."""
    everything = (own for turns in outcome.turns.values() for own in turns.values())
    return sum(found.asked - found.answered for found in map(figures, everything))


def json(outcome: Outcome, machine: Machine) -> dict[str, Any]:
    """Return everything for a file: figures, ratios and every single latency."""
    return {
        "machine": machine.json(),
        "servers": list(outcome.servers),
        "rounds": outcome.rounds,
        "differences": outcome.differences,
        "points": [
            {**_described(point), "servers": [_server(point, turns, name) for name in turns]}
            for point, turns in outcome.turns.items()
        ],
    }


def _described(point: Point) -> dict[str, Any]:
    if isinstance(point, Mixed):
        return {
            "kind": "mixed",
            "short": point.short.name,
            "long": point.long.name,
            "clients": point.clients,
        }
    return {"kind": "steady", "row": point.row.name, "clients": point.clients}


def _server(point: Point, turns: dict[str, list[Measured]], name: str) -> dict[str, Any]:
    parts: dict[str, Row | None] = {"all": None}
    if isinstance(point, Mixed):
        parts |= {"short": point.short, "long": point.long}
    found: dict[str, Any] = {"server": name}
    for part, row in parts.items():
        found[part] = figures(turns[name], row).json()
        if name != SERVICE:
            found[part]["service_divided_by_this"] = {
                "p50": ratio(turns[SERVICE], turns[name], p50, row),
                "pictures_per_second": ratio(turns[SERVICE], turns[name], rate, row),
            }
    found["rounds"] = [
        {
            "seconds": turn.seconds,
            "answers": [
                {"row": each.row.name, "seconds": each.seconds, "fault": each.fault}
                for each in turn.answers
            ],
        }
        for turn in turns[name]
    ]
    return found
