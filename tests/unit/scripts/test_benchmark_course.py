"""A benchmark against the service's own HTTP side, whose engine draws gradients."""

import argparse
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from scripts import benchmark_performance
from scripts.benchmark import report, servers
from scripts.benchmark.client import Answer, Client, flaw
from scripts.benchmark.course import Course, difference
from scripts.benchmark.limits import Limits
from scripts.benchmark.load import Load
from scripts.benchmark.rows import BenchmarkError, Mixed, Row, Steady, row
from scripts.benchmark.servers import Server
from scripts.drill.child import Child, started
from scripts.drill.wait import until
from service.app import create_app
from service.config import Config
from service.credentials import Keys
from service.engine.fake import FakeEngine
from service.http.keys import OPENAPI

ROW = row("256x256/2")
STEADY = Steady(row=ROW, clients=3)
KEY = "0123456789abcdef01234567"
LIMITS = Limits(min_size=256, max_size=768, multiple=64, max_steps=50)


def quiet(what: str, work: int) -> None:
    del what, work


def silent(answer: object) -> None:
    del answer


@pytest.fixture
def serve(aiohttp_client):
    """Start a service with these settings; return its address and a client of the benchmark's."""

    async def start(engine: FakeEngine | None = None, **settings):
        app = create_app(Config(**{"data_dir": ""} | settings), engine or FakeEngine())
        running = await aiohttp_client(app)
        url = str(running.make_url("")).rstrip("/")
        return url, Client(running.session, url)

    return start


@pytest.fixture
def answering(aiohttp_client):
    """Start a server whose answers to /generate come from a list."""

    async def start(*answers: web.Response) -> Client:
        left = list(answers)

        async def generate(request: web.Request) -> web.Response:
            await request.read()
            return left.pop(0)

        app = web.Application()
        app.router.add_post("/generate", generate)
        running = await aiohttp_client(app)
        return Client(running.session, str(running.make_url("")).rstrip("/"))

    return start


def given(*words: object) -> argparse.Namespace:
    return benchmark_performance.parser().parse_args([str(word) for word in words])


async def test_every_request_is_answered_and_counted(serve):
    """Pictures of the size asked for; time passes, and nothing is left over."""
    _, client = await serve()
    measured = await Load(client, silent, 60).steady(STEADY, 7)
    assert [answer.fault for answer in measured.answers] == [""] * 7
    assert all(0 < answer.seconds <= measured.seconds for answer in measured.answers)
    assert not measured.refusals


async def test_a_mixed_load_has_both_kinds(serve):
    """As many short requests as are asked for; long ones go on as long as those."""
    _, client = await serve()
    mixed = Mixed(short=ROW, long=row("512x512/4"), clients=4)
    measured = await Load(client, silent, 60).mixed(mixed, 6, 0.01)
    kinds = [answer.row for answer in measured.answers]
    assert kinds.count(mixed.short) == 6
    assert kinds.count(mixed.long) >= 2
    assert not any(answer.fault for answer in measured.answers)


async def test_no_request_begins_after_the_time(serve):
    """But each client's first."""
    _, client = await serve()
    measured = await Load(client, silent, 0.0).steady(STEADY, 300)
    assert 1 <= len(measured.answers) <= 3


async def test_a_refusal_is_heeded_and_counted(serve):
    """With a queue of one place, who is refused comes back when told."""
    _, client = await serve(
        queue_size=1, max_concurrent_requests=1, engine=FakeEngine(step_seconds=0.01)
    )
    measured = await Load(client, silent, 60).steady(Steady(row=ROW, clients=4), 4)
    assert [answer.fault for answer in measured.answers] == [""] * 4
    assert measured.refusals["503 queue_full"] >= 1
    assert max(answer.seconds for answer in measured.answers) >= 1.0  # Retry-After's least.


async def test_a_refusal_until_after_the_end_is_a_fault(answering):
    """Nobody waits for an hour."""
    full = web.json_response({"code": "queue_full", "detail": "Full."}, status=503)
    full.headers["Retry-After"] = "3600"
    client = await answering(full)
    answer, _ = await client.ask(ROW, 1, time.perf_counter() + 60)
    assert (answer.fault, answer.detail) == ("503 queue_full", "Full.")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (web.json_response({"code": "out_of_memory"}, status=500), "500 out_of_memory"),
        (web.Response(status=502, text="<html>Bad Gateway"), "502"),
        (web.json_response([1], status=418), "418"),
        (web.Response(body=b"\x89PNG\r\n\x1a\nhalf"), "200 without a whole PNG"),
        (web.Response(text="fine"), "200 without a whole PNG"),
    ],
)
async def test_what_is_no_picture_is_a_fault(answering, answer, fault):
    """By its status and code."""
    found, _ = await (await answering(answer)).ask(ROW, 1)
    assert found.fault == fault


async def test_a_picture_of_another_size_is_a_fault(serve):
    """A server that ignores the size would be fast."""
    _, client = await serve()
    _, picture = await client.ask(ROW, 1)
    assert difference(picture, picture) == 0
    assert flaw(picture, ROW) == ""
    assert flaw(picture, row("512x512/2")) == "200 with a picture of 256x256"


async def test_a_server_that_is_gone_is_a_fault(serve):
    """And no hang."""
    _, client = await serve()
    gone = Client(client._session, "http://127.0.0.1:9")
    answer, _ = await gone.ask(ROW, 1)
    assert answer.fault == "no answer: ClientConnectorError"


async def test_servers_take_turns_and_each_begins(serve):
    """In each round all of them, another one first."""
    (one, first), (other, second) = await serve(), await serve()
    seen: list[str] = []

    def show(what: str, work: int) -> None:
        if not work and "warm-up" not in what:
            seen.append(what.rpartition(", ")[2])

    course = Course(
        servers=[
            Server(name="service", url=one, client=first),
            Server(name="other", url=other, client=second),
        ],
        points=[STEADY],
        requests=6,
        rounds=2,
        seconds=60,
        show=show,
    )
    outcome = await course.run()
    assert seen == ["service", "other", "other", "service"]
    turns = outcome.turns[STEADY]
    assert [len(turn.answers) for turn in (*turns["service"], *turns["other"])] == [6] * 4
    assert outcome.differences == {"other": 0.0}


async def test_one_client_changes_the_server_after_every_picture(serve):
    """So that a disturbance of some seconds is nobody's alone."""
    url, client = await serve()
    point = Steady(row=ROW, clients=1)
    course = Course(
        servers=[Server(name="service", url=url, client=client)],
        points=[point],
        requests=3,
        rounds=2,
        seconds=60,
        show=quiet,
    )
    turns = (await course.run()).turns[point]["service"]
    assert [len(turn.answers) for turn in turns] == [1] * 6


def standing(child: Child, expected: list[bool]) -> Callable[[], Awaitable[bool]]:
    """Return whether a process and what it has started stand still as expected.

    A signal is on its way for a moment, so this is asked until it is so.
    """

    async def found() -> bool:
        family = [psutil.Process(child.pid), *child.family()]
        return [each.status() == psutil.STATUS_STOPPED for each in family] == expected

    return found


class Other(Client):
    """Asks for another picture than the benchmark wants."""

    async def ask(self, row: Row, number: int, last: float = 0.0) -> tuple[Answer, bytes]:
        return await super().ask(row, number + 40, last)


async def test_a_server_stands_still_but_in_its_turn(tmp_path):
    """With all that it has started."""
    async with started(["sh", "-c", "sleep 60 & wait"], tmp_path / "log") as child:

        async def both() -> bool:
            return len(child.family()) == 1

        await until(both, 30, "the child of the child")
        url = "http://127.0.0.1:9"
        async with aiohttp.ClientSession() as session:
            server = Server(name="other", url=url, client=Client(session, url), child=child)
            server.pause()
            await until(standing(child, [True, True]), 30, "both stand still")
            with server.turn():
                await until(standing(child, [False, False]), 30, "both run")
            await until(standing(child, [True, True]), 30, "both stand still again")
            server.resume()


async def test_a_server_that_has_ended_takes_no_turns(tmp_path):
    """Neither it nor whoever has its id by now is let run; what it has left behind is."""
    async with started(["sh", "-c", "sleep 60 & wait"], tmp_path / "log") as child:

        async def left_behind() -> bool:
            return len(child.family()) == 1

        await until(left_behind, 30, "the child of the child")
        url = "http://127.0.0.1:9"
        async with aiohttp.ClientSession() as session:
            server = Server(name="other", url=url, client=Client(session, url), child=child)
            await child.kill()
            with server.turn():
                pass
            (orphan,) = child.family()

            async def stands() -> bool:
                return orphan.status() == psutil.STATUS_STOPPED

            await until(stands, 30, "what it left behind stands still")
            server.resume()


async def test_a_server_that_ends_in_its_turn_is_counted(serve):
    """Each request that got no picture is one, and the others' figures are kept."""
    (one, first), (other, second) = await serve(), await serve()

    class Ending(Client):
        """Is there for the warm-up only."""

        left = 1 + STEADY.clients + 1

        async def ask(self, row: Row, number: int, last: float = 0.0) -> tuple[Answer, bytes]:
            self.left -= 1
            if self.left < 0:
                self._url = "http://127.0.0.1:9/generate"
            return await super().ask(row, number, last)

    course = Course(
        servers=[
            Server(name="service", url=one, client=first),
            Server(name="other", url=other, client=Ending(second._session, other)),
        ],
        points=[STEADY],
        requests=6,
        rounds=2,
        seconds=60,
        show=quiet,
    )
    outcome = await course.run()
    assert report.faults(outcome) == 11
    text = report.tables(outcome)
    assert "1 of 12" in text
    assert "no answer: ClientConnectorError" in text


async def test_a_server_that_draws_something_else_is_no_match(serve):
    """The comparison would be void."""
    url, client = await serve()
    other = Other(client._session, url)
    course = Course(
        servers=[
            Server(name="service", url=url, client=client),
            Server(name="other", url=url, client=other),
        ],
        points=[STEADY],
        requests=6,
        rounds=1,
        seconds=60,
        show=quiet,
    )
    with pytest.raises(BenchmarkError, match="other draws another picture of 256x256/2"):
        await course.run()


async def test_a_running_service_is_measured(serve, tmp_path):
    """All that a user sees, from its address to the table."""
    url, _ = await serve()
    words = ("--url", url, "--rows", "256x256/2,512x512/3", "--clients", "1,2", "--requests", 4)
    outcome, computer = await benchmark_performance.measure(given(*words), tmp_path)
    assert [point.name for point in outcome.turns] == [
        *("256x256/2, 1 client", "256x256/2, 2 clients"),
        *("512x512/3, 1 client", "512x512/3, 2 clients"),
        "256x256/4 beside 512x512/20, 4 clients",
    ]
    assert report.faults(outcome) == 0
    assert (computer.model, computer.threads) == ("fake", 0)
    assert json.dumps(report.json(outcome, computer))


async def test_a_wrong_key_is_named(serve, tmp_path):
    """Before anything is measured, with the cure; the right one is let in."""
    url, _ = await serve(api_keys=Keys(f"mine:{KEY}"))
    words = ("--url", url, "--rows", "256x256/2", "--clients", "1", "--mixed", "none")
    for wrong in ((), ("--api-key", "wrong")):
        with pytest.raises(BenchmarkError, match=r"401 unauthorized.*--api-key"):
            await benchmark_performance.measure(given(*words, *wrong), tmp_path)
    outcome, _ = await benchmark_performance.measure(given(*words, "--api-key", KEY), tmp_path)
    assert report.faults(outcome) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1024x1024/4", "256 to 768 pixels"),
        ("256x300/4", "multiples of 64"),
        ("256x256/51", "allows 50 steps"),
    ],
)
def test_what_the_service_does_not_allow_is_refused(name, said):
    """The row, the limit and the setting are named."""
    with pytest.raises(BenchmarkError, match=said) as refused:
        benchmark_performance.points(given("--rows", name), LIMITS)
    assert name in str(refused.value)


def test_of_the_defaults_what_is_allowed_is_left(capsys):
    """A service for small pictures is measured with small ones, and the others are named."""
    small = Limits(min_size=256, max_size=512, multiple=64, max_steps=20)
    found = benchmark_performance.points(given(), small)
    names = dict.fromkeys(point.row.name for point in found if isinstance(point, Steady))
    assert [*names] == ["256x256/20", "512x512/20"]
    assert capsys.readouterr().err.count("left out:") == 2


def test_the_limits_are_those_of_the_description():
    """Of the settings that the service has."""
    config = Config(data_dir="", min_size=128, max_size=1024, max_steps=99)
    document = json.loads(create_app(config, FakeEngine())[OPENAPI])
    expected = Limits(min_size=128, max_size=1024, multiple=64, max_steps=99)
    assert Limits.described(document) == expected
    with pytest.raises(BenchmarkError, match="is it this service"):
        Limits.described({"paths": {}})


def test_a_command_is_shown_without_its_key_and_places():
    """It goes into a document that others read."""
    words = ["--api-key", "secret", "--out=/somewhere", "--compare", "--clients", "1,8"]
    assert benchmark_performance.command([*words, "--url", "http://me:secret@host"]) == (
        "python scripts/benchmark_performance.py --compare --clients 1,8"
    )
    with pytest.raises(SystemExit):
        given("--api-k", "secret")


@pytest.mark.parametrize("missing", ["litserve", "matplotlib"])
def test_a_missing_package_is_named_with_its_cure(monkeypatch, capsys, missing, tmp_path):
    """Before anything is started."""
    for module in (benchmark_performance, servers):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else True)
    assert benchmark_performance.main(["--compare", "--plot", str(tmp_path / "plot.png")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert missing in said.lower()
    assert "pip install -c constraints.txt -e '.[engine,benchmark]'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compare", "--url", "http://127.0.0.1:9"], "leave out --url"),
        (["--json", "nowhere/at/all.json"], "--json nowhere/at/all.json: there is no folder"),
        (["--plot", "."], "--plot .: is a folder"),
        (["--markdown", "/proc/table.md"], "--markdown /proc/table.md: cannot be written"),
        (["--url", "http://127.0.0.1:9"], "nothing answers at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, words, said):
    """With exit code 2 and no traceback."""
    assert benchmark_performance.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    "words",
    [
        ["--rows", "512"],
        ["--clients", "0"],
        ["--clients", "257"],
        ["--mixed-clients", "1"],
        ["--seconds", "nan"],
        ["--seconds", "0"],
        ["--compare", "apache"],
        ["--mixed", "256x256/4"],
        ["--url", "127.0.0.1:8000"],
    ],
)
def test_arguments_of_another_form_are_refused(capsys, words):
    """By argparse, with the argument's name."""
    with pytest.raises(SystemExit):
        given(*words)
    assert f"argument {words[0]}: {words[1]!r}" in capsys.readouterr().err


def test_files_go_into_the_folder(tmp_path, monkeypatch):
    """--out is all three, and a file of its own beats it."""
    monkeypatch.setattr(benchmark_performance, "find_spec", lambda _name: True)
    found = given("--out", tmp_path / "new", "--json", tmp_path / "mine.json")
    benchmark_performance.check(found)
    assert (found.json, found.plot) == (tmp_path / "mine.json", tmp_path / "new/performance.png")
    assert Path(found.out).is_dir()
