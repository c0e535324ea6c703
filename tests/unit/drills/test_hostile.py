"""The arithmetic of the hostile drill, and its connections."""

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from service.errors import ConfigError
from tests.drills.common.ledger import delays, lost
from tests.drills.common.report import MIB, finite, percentile
from tests.drills.hostile.__main__ import DRILL
from tests.drills.hostile.attacks import ATTACKS
from tests.drills.hostile.burner import MOST_BEHIND, Debt
from tests.drills.hostile.course import rounds, windows
from tests.drills.hostile.figures import (
    SLACK_BYTES,
    Memory,
    Round,
    Side,
    cpu_name,
    described,
    is_back,
    late,
    missed,
    missing,
    rate,
    ratio,
)
from tests.support.wire import Held, Line, Target

NEVER = math.inf


def side(image: float = 0.5, probe: float = 0.002, webhook: float = 0.01) -> Side:
    """Return a hundred of everything, five of which have these values; they are slower."""
    return Side(
        seconds=15.0,
        images=[0.5] * 94 + [image] * 6,
        probes=[0.001] * 98 + [probe] * 2,
        webhooks=[0.01] * 99 + [webhook],
    )


def seen(attack: Side | None = None, **more) -> Round:
    memory = Memory(before=60 * MIB, most=90 * MIB, after=61 * MIB, back=3.0)
    fields = {"attack": attack or side(), "control": side(), "memory": memory, "taken": 300}
    return Round(name="all", **{**fields, **more})


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (0.951, 20.0), (1.0, 20.0)]
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(part, expected):
    """Of twenty values, whatever their order."""
    assert percentile([float(value) for value in range(20, 0, -1)], part) == expected


def test_what_did_not_come_is_slower_than_all_others():
    """One of twenty is beyond the 95th percentile; two are not."""
    assert percentile([1.0] * 19 + [NEVER], 0.95) == 1.0
    assert percentile([1.0] * 18 + [NEVER] * 2, 0.95) == NEVER
    assert math.isnan(percentile([], 0.95))
    assert missing([1.0, NEVER, 2.0]) == 1
    assert late([0.9, 1.1, NEVER]) == 2


def test_a_ratio_needs_a_control():
    """Nothing can be said where the undisturbed service did not answer either."""
    assert ratio(0.6, 0.5) == pytest.approx(1.2)
    assert ratio(NEVER, 0.5) == NEVER
    assert math.isnan(ratio(0.5, NEVER))


def test_a_round_that_meets_its_goals_misses_none():
    """A fifth slower, probes of 50 ms and webhooks of 1 s are within them."""
    assert list(missed(seen(side(image=0.6, probe=0.05, webhook=1.0)))) == []


@pytest.mark.parametrize(
    ("goal", "round_"),
    [
        ("`/generate` p95, times the control's: 1.22, 1.2 at most", seen(side(image=0.61))),
        ("`/health/live` p99, ms: 51, 50 at most", seen(side(probe=0.051))),
        ("webhooks later than 1 s after their jobs: 1, 0 at most", seen(side(webhook=1.5))),
        ("webhooks later than 1 s after their jobs: 1, 0 at most", seen(side(webhook=NEVER))),
        ("accepted jobs lost: 2, 0 at most", seen(lost=["a unknown", "b failed"])),
        (
            "MiB more, 60 s after the attack: 40, 16 at most",
            seen(memory=Memory(before=60 * MIB, after=100 * MIB)),
        ),
    ],
)
def test_a_goal_that_is_missed_is_named(goal, round_):
    """Each is the only one that is missed."""
    (found,) = missed(round_)
    assert goal in found
    assert "1 missed" in described([round_])


def test_what_did_not_come_is_named():
    """An image and a probe that did not come are missed goals, however fast the others were."""
    attack = side()
    attack.images[0] = attack.probes[0] = NEVER
    assert list(missed(seen(attack))) == [
        "images that did not come: 1, 0 at most",
        "probes that did not come: 1, 0 at most",
    ]


def test_a_round_without_requests_misses_its_goals():
    """No figure is no success."""
    assert len(list(missed(seen(Side())))) == 2


def test_figures_that_are_no_numbers_are_left_out_of_json():
    """JSON has no infinity."""
    found = finite(seen(side(image=NEVER)).json())
    assert (found["ratio"], found["attack"]["p95"], found["attack"]["p50"]) == (None, None, 0.5)
    assert found["control"]["missing_images"] == 0


def test_memory_is_back_within_its_slack():
    """And not a byte above it."""
    memory = Memory(before=60 * MIB)
    assert is_back(memory, memory.before + SLACK_BYTES)
    assert not is_back(memory, memory.before + SLACK_BYTES + 1)


@pytest.mark.parametrize(("cpu", "wall", "expected"), [(3.0, 15.0, 0.2), (20.0, 15.0, 1.0)])
def test_the_busy_loop_gets_the_attackers_pace(cpu, wall, expected):
    """Within the one core that an attacker of one thread can have."""
    assert rate(cpu, wall) == pytest.approx(expected)
    assert rate(0.0, 0.0) == 0.0


def test_the_busy_loop_takes_what_it_owes():
    """A fifth of the time that passes, less what it took; long waits are not made up for."""
    debt = Debt()
    debt.passed(10.0, 0.0)
    assert debt.seconds == 0.0
    debt.change(0.2)
    debt.passed(0.1, 0.0)
    assert debt.seconds == pytest.approx(0.02)
    debt.passed(0.1, 0.03)
    assert debt.seconds == pytest.approx(0.01)
    debt.passed(60.0, 0.0)
    assert debt.seconds == MOST_BEHIND
    debt.change(0.0)
    assert debt.seconds == 0.0


def test_windows_are_equal_and_no_longer_than_wished_for():
    """At least one; together they last as long as the attack."""
    assert windows(300.0, 15.0) == [15.0] * 20
    assert windows(20.0, 15.0) == [20.0]
    assert windows(4.0, 15.0) == [4.0]


def test_attacks_come_one_by_one_and_then_together():
    """Where that was asked for."""
    found = list(rounds(DRILL.parser().parse_args(["--each", "15"])))
    assert [name for name, _, _ in found] == [*ATTACKS, "all"]
    assert found[0] == ("names", ("names",), 15.0)
    assert found[-1] == ("all", tuple(ATTACKS), 300.0)
    assert [name for name, _, _ in rounds(DRILL.parser().parse_args(["--seconds", "1"]))] == ["all"]


JOBS: dict[str, dict[str, Any]] = {
    "a": {"state": "succeeded", "finished_at": 100.0},
    "b": {"state": "failed", "finished_at": 100.0, "error": {"code": "timeout"}},
    "c": {"state": "running", "finished_at": None},
}


def test_jobs_that_did_not_end_as_they_must_are_lost():
    """Those that nobody knows, that are not over, and that failed where they must not."""
    assert list(lost(JOBS, "abcd", {"succeeded"})) == ["b failed timeout", "c running", "d unknown"]
    assert list(lost(JOBS, "ab", {"succeeded", "failed"})) == []


def test_a_webhook_is_late_by_the_end_of_its_job():
    """One that did not come, or whose job is not over, is later than all others."""
    assert delays(JOBS, "abcd", {"a": 100.25, "c": 99.0}) == [0.25, NEVER, NEVER, NEVER]


def test_the_cpu_is_named_as_the_kernel_names_it(tmp_path):
    """Somewhere else it has at least the name of its kind."""
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: A CPU of 2 GHz\nmodel name\t: A CPU of 2 GHz\n")
    assert cpu_name(told) == "A CPU of 2 GHz"
    assert cpu_name(tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seconds", "0"], "--seconds"),
        (["--each", "-1"], "--each"),
        (["--window", "0"], "--window"),
        (["--report", "/nowhere/report"], "--report"),
        (["--attacks", "keys", "--write"], "--attacks"),
    ],
)
def test_what_cannot_be_done_is_refused(words, named):
    """Before anything starts."""
    with pytest.raises(ConfigError, match=named):
        DRILL.check(DRILL.parser().parse_args(words))


def test_an_unknown_attack_is_refused(capsys):
    """With its name; known ones are carried out in the order given."""
    assert DRILL.parser().parse_args(["--attacks", "keys,names"]).attacks == ("keys", "names")
    with pytest.raises(SystemExit):
        DRILL.parser().parse_args(["--attacks", "keys,locks"])
    assert "locks: no attack of this drill" in capsys.readouterr().err


def test_the_page_names_its_command_and_its_outcome():
    """Its figures are those of the rounds."""
    given = DRILL.parser().parse_args(["--each", "15"])
    page = DRILL.document(given, [seen(), seen(side(probe=0.2))])
    assert "--seconds 300 --each 15 --window 15 --write" in page
    assert "- all: `/health/live` p99, ms: 200, 50 at most." in page
    assert "| all | 0.50 | 0.50 | 1.00 |" in " ".join(page.split())


@asynccontextmanager
async def answering(answer: bytes):
    """Listen on the loopback address, answer each request with these bytes and hang up."""
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(EOFError):  # A client that was ended.
            came.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Target(port=port, key="secret", source="127.0.0.1"), came


async def test_a_line_is_made_again_where_it_was_closed():
    """Each question gets its answer, and one that gets none is told as 0."""
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    async with answering(answer) as (target, came):
        line = Line(target)
        assert await line.ask("GET", "/jobs") == (401, b"no")
        assert await line.ask("GET", "/jobs", headers={"X-API-Key": ""}) == (401, b"no")
        line.close()
        assert b"X-API-Key: secret\r\n" in came.get_nowait()
        assert b"X-API-Key" not in came.get_nowait()
    async with answering(b"") as (target, _):
        assert await Line(target).ask("GET", "/jobs") == (0, b"")


async def test_connections_that_were_closed_are_counted_and_made_again():
    """By the status that came before the end, or as cut off."""
    tally: Counter[str] = Counter()
    async with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as (target, came):
        request = target.request("POST", "/generate", b"{", length=2000)
        going = asyncio.Event()
        going.set()
        held = asyncio.create_task(Held(target, lambda _: request, tally).keep(3, 100, going))
        async with asyncio.timeout(20):
            requests = [await came.get() for _ in range(7)]
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
    assert all(b"Content-Length: 2000" in request for request in requests)
    assert tally["opened"] >= 7
    assert tally["503"] >= 4
    assert tally["most open"] <= 3
