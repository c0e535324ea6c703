"""A benchmark against the service's own HTTP side, whose engine draws gradients."""

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web

from scripts import benchmark_performance
from scripts.benchmark import report
from scripts.benchmark.course import Course
from scripts.benchmark.load import Load, ask, flaw
from scripts.benchmark.rows import BenchmarkError, Point, row
from scripts.benchmark.servers import Server
from service.app import create_app
from service.config.credentials import Keys
from service.config.table import Config
from tests.support.load_client import Answer, Client
from tests.support.programs import Program, started
from tests.support.simulation.fake_engine import FakeEngine
from tests.support.wait import until

ROW = row("256x256/2")
STEADY = Point(rows=(ROW,), clients=3)
KEY = "0123456789abcdef01234567"


def quiet(load: str) -> None:
    del load


@pytest.fixture
def serve(aiohttp_client):
    """Start a service with these settings; return its address and a client of the benchmark's."""

    async def start(engine: FakeEngine | None = None, **settings):
        app = create_app(Config(**{"data_dir": ""} | settings), engine or FakeEngine())
        running = await aiohttp_client(app)
        url = str(running.make_url("")).rstrip("/")
        return url, Client(url, running.session)

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
        return Client(str(running.make_url("")).rstrip("/"), running.session)

    return start


def given(*words: object) -> argparse.Namespace:
    return benchmark_performance.parser().parse_args([str(word) for word in words])


async def test_every_request_is_answered_and_counted(serve):
    """Images of the size asked for; time passes, and nothing is left over."""
    _, client = await serve()
    measured = await Load(client, 60).run(STEADY, 7)
    assert [answer.fault for answer in measured.answers] == [""] * 7
    assert all(0 < answer.seconds <= measured.seconds for answer in measured.answers)
    assert not any(answer.refusals for answer in measured.answers)


async def test_a_mixed_load_has_both_kinds(serve):
    """As many short requests as are asked for; long ones go on as long as those."""
    _, client = await serve()
    mixed = Point(rows=(ROW, row("512x512/4")), clients=4)
    measured = await Load(client, 60).run(mixed, 6, 0.01)
    kinds = [answer.row for answer in measured.answers]
    assert kinds.count(ROW) == 6
    assert kinds.count(mixed.rows[1]) >= 2
    assert not any(answer.fault for answer in measured.answers)


async def test_no_request_begins_after_the_time(serve):
    """But each client's first."""
    _, client = await serve()
    measured = await Load(client, 0.0).run(STEADY, 300)
    assert 1 <= len(measured.answers) <= 3


async def test_a_refusal_is_heeded_and_counted(serve):
    """With a queue of one place, who is refused comes back when told."""
    _, client = await serve(
        queue_size=1, max_concurrent_requests=1, engine=FakeEngine(step_seconds=0.01)
    )
    measured = await Load(client, 60).run(Point(rows=(ROW,), clients=4), 4)
    assert [answer.fault for answer in measured.answers] == [""] * 4
    assert {each for answer in measured.answers for each in answer.refusals} == {"503 queue_full"}
    assert max(answer.seconds for answer in measured.answers) >= 1.0  # Retry-After's least.


async def test_a_refusal_until_after_the_end_is_a_fault(answering):
    """Nobody waits for an hour."""
    full = web.json_response({"code": "queue_full", "detail": "Full."}, status=503)
    full.headers["Retry-After"] = "3600"
    client = await answering(full)
    answer, found = await ask(client, ROW, 1, time.monotonic() + 60)
    assert (answer.fault, found.body["detail"]) == ("503 queue_full", "Full.")


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
async def test_what_is_no_image_is_a_fault(answering, answer, fault):
    """By its status and code."""
    found, _ = await ask(await answering(answer), ROW, 1)
    assert found.fault == fault


async def test_an_image_of_another_size_is_a_fault(serve):
    """A server that ignores the size would be fast."""
    _, client = await serve()
    _, image = await ask(client, ROW, 1)
    assert flaw(image, ROW) == ""
    assert flaw(image, row("512x512/2")) == "200 with an image of 256x256"


async def test_a_server_that_is_gone_is_a_fault(serve):
    """And no hang."""
    _, client = await serve()
    answer, _ = await ask(Client("http://127.0.0.1:9", client.session), ROW, 1)
    assert answer.fault == "no answer: ClientConnectorError"


async def test_servers_take_turns_and_each_begins(serve):
    """In each round all of them, another one first."""
    (_, first), (_, second) = await serve(), await serve()
    seen: list[str] = []

    def show(load: str) -> None:
        if "warm-up" not in load:
            seen.append(load.rpartition(", ")[2])

    course = Course(
        servers=[
            Server(name="service", client=first),
            Server(name="other", client=second),
        ],
        points=[STEADY],
        requests=6,
        rounds=2,
        show=show,
    )
    outcome = await course.run()
    assert seen == ["service", "other", "other", "service"]
    turns = outcome.turns[STEADY]
    assert [len(turn.answers) for turn in (*turns["service"], *turns["other"])] == [6] * 4
    assert outcome.differences == {"other": 0.0}


async def test_one_client_changes_the_server_after_every_image(serve):
    """So that a disturbance of some seconds is nobody's alone."""
    _, client = await serve()
    point = Point(rows=(ROW,), clients=1)
    course = Course(
        servers=[Server(name="service", client=client)],
        points=[point],
        requests=3,
        rounds=2,
        show=quiet,
    )
    turns = (await course.run()).turns[point]["service"]
    assert [len(turn.answers) for turn in turns] == [1] * 6


def standing(child: Program, expected: list[bool]) -> Callable[[], Awaitable[bool]]:
    """Return whether a process and what it has started stand still as expected.

    A signal is on its way for a moment, so this is asked until it is so.
    """

    async def found() -> bool:
        family = [psutil.Process(child.pid), *child.family()]
        return [each.status() == psutil.STATUS_STOPPED for each in family] == expected

    return found


class Other(Client):
    """Asks for another image than the benchmark wants."""

    async def generate(self, body: Mapping[str, Any], **more: Any) -> Answer:
        return await super().generate({**body, "seed": body["seed"] + 40}, **more)


async def test_a_server_stands_still_but_in_its_turn(tmp_path):
    """With all that it has started."""
    async with started(["sh", "-c", "sleep 60 & wait"], tmp_path / "log") as child:

        async def both() -> bool:
            return len(child.family()) == 1

        await until(both, 30, "the child of the child")
        url = "http://127.0.0.1:9"
        async with aiohttp.ClientSession() as session:
            server = Server(name="other", client=Client(url, session), child=child)
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
            server = Server(name="other", client=Client(url, session), child=child)
            child.kill()
            with server.turn():
                pass
            (orphan,) = child.family()

            async def stands() -> bool:
                return orphan.status() == psutil.STATUS_STOPPED

            await until(stands, 30, "what it left behind stands still")
            server.resume()


async def test_a_server_that_ends_in_its_turn_is_counted(serve):
    """Each request that got no image is one, and the others' figures are kept."""
    (_, first), (other, second) = await serve(), await serve()

    class Ending(Client):
        """Is there for the warm-up only."""

        left = 1 + STEADY.clients + 1

        async def generate(self, body: Mapping[str, Any], **more: Any) -> Answer:
            self.left -= 1
            if self.left < 0:
                self.url = "http://127.0.0.1:9"
            return await super().generate(body, **more)

    course = Course(
        servers=[
            Server(name="service", client=first),
            Server(name="other", client=Ending(other, second.session)),
        ],
        points=[STEADY],
        requests=6,
        rounds=2,
        show=quiet,
    )
    outcome = await course.run()
    found = report.json(outcome, {})
    assert report.faults(found) == 11
    text = report.tables(found)
    assert "1 of 12" in text
    assert "no answer: ClientConnectorError" in text


async def test_a_server_that_draws_something_else_is_no_match(serve):
    """The comparison would be void."""
    url, client = await serve()
    other = Other(url, client.session)
    course = Course(
        servers=[
            Server(name="service", client=client),
            Server(name="other", client=other),
        ],
        points=[STEADY],
        requests=6,
        rounds=1,
        show=quiet,
    )
    with pytest.raises(BenchmarkError, match="other draws another image of 256x256/2"):
        await course.run()


async def test_a_running_service_is_measured(serve, tmp_path):
    """All that a user sees, from its address to the table."""
    url, _ = await serve()
    words = ("--url", url, "--rows", "256x256/2,512x512/3", "--clients", "1,2", "--requests", 4)
    found = await benchmark_performance.measure(given(*words), tmp_path)
    assert [point["name"] for point in found["points"]] == [
        *("256x256/2, 1 client", "256x256/2, 2 clients"),
        *("512x512/3, 1 client", "512x512/3, 2 clients"),
        "256x256/4 with 512x512/20, 4 clients",
    ]
    assert report.faults(found) == 0
    assert (found["machine"]["model"], found["machine"]["threads"]) == ("fake", 0)
    assert json.dumps(found)


async def test_a_wrong_key_is_named(serve, tmp_path):
    """Before anything is measured, with the cure; the right one is let in."""
    url, _ = await serve(api_keys=Keys(f"mine:{KEY}"))
    words = ("--url", url, "--rows", "256x256/2", "--clients", "1", "--mixed", "none")
    for wrong in ((), ("--api-key", "wrong")):
        with pytest.raises(BenchmarkError, match=r"401 unauthorized.*--api-key"):
            await benchmark_performance.measure(given(*words, *wrong), tmp_path)
    found = await benchmark_performance.measure(given(*words, "--api-key", KEY), tmp_path)
    assert report.faults(found) == 0
