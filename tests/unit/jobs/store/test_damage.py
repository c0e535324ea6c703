"""A DATA_DIR that is well-formed and wrong: what is damaged is set aside, and the rest works."""

import asyncio
import json
import os
import shutil
import sqlite3
import time
import zipfile
from contextlib import closing
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.access.allowance import Limits
from service.config.table import Config
from service.errors import ConfigError, StoreError
from service.http.state import ALLOWANCE, DURABLE, METRICS
from service.jobs.store import schema
from service.jobs.store.reading import moment
from tests.support.job_service import BODY, ask, events, service, until
from tests.support.simulation.fake_engine import FakeEngine

FILE = "jobs.sqlite"
WRONG: dict[str, list[Any]] = {
    "id": ["x", "../../../etc/passwd", "A" * 32, b"\x00" * 32, 7],
    "key": ["", b"alice", b"\xff\xfe"],
    "state": ["flying", "", b"failed", 3],
    "request": [
        *("", "{", "null", "[]", "3", '"a"', "{}", b"\x80", "[" * 100_000, b'{"prompt": "a"}'),
        *('{"prompt": 3}', '{"prompt": "a", "steps": "x"}', '{"prompt": "a", "steps": 1e999}'),
        *(
            '{"prompt": "a", "width": -64}',
            '{"prompt": "a", "height": 5000}',
            '{"prompt": "a", "num_images": 99999999}',
        ),
        *('{"prompt": "a", "seed": NaN}', '{"prompt": "a", "steps": null}'),
        *('{"prompt": "a", "guidance_scale": NaN}', '{"prompt": "a", "sampler": ["x"]}'),
        *('{"prompt": "a", "seed": true}', '{"prompt": "a", "guidance_scale": "9"}'),
    ],
    "request_id": [b"r"],
    "trace_id": ["nonsense", "0" * 32, b"\xff"],
    "created_at": ["yesterday", float("inf"), 1e300, b"1", 2**62],
    "started_at": ["now", float("-inf"), b"1"],
    "finished_at": ["now", float("inf"), b"1"],
    "deadline_at": ["never", float("inf"), b"1", 1e200],
    "api": ["", b"native"],
    "attempts": ["many", -1, 2**62, 1.5, b"1"],
    "epoch": ["last", -1, 2**62, 1.5],
    "steps_done": ["some", -1, 2**62, 1.5],
    "error_code": [b"x"],
    "error_detail": [b"\xff"],
    "metadata": ["", "{", "[]", "3", "null", b"{}", '{"a": Infinity}', "[" * 100_000],
    "model_version": [b"x"],
    "idempotency_key": [b"x"],
    "idempotency_digest": [b"x"],
    "webhook": ["", "nowhere", "http://[", "ftp://example.org/", b"https://example.org/"],
    "webhook_state": ["lost", b"pending", 1],
    "webhook_attempts": ["x", -1, 0.5],
    "webhook_status": ["ok", 0.5],
    "webhook_detail": [b"x"],
}
CASES = [(column, value) for column, values in WRONG.items() for value in values]
FIRST = [(column, values[0]) for column, values in WRONG.items()]
OVER, WAITS = 0, 2
"""Which of the three jobs is spoilt: the start only lists the one, and runs the other."""


def spoil(folder, job, column, value):
    """Write into a row what no service writes."""
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        statement = f"UPDATE jobs SET {column} = ? WHERE id = ?"  # noqa: S608 - names of ours
        assert connection.execute(statement, (value, job)).rowcount == 1


def set_aside(folder):
    """Return the rows that were set aside."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        found = connection.execute("SELECT source, reason, content FROM set_aside ORDER BY id")
        return found.fetchall()


def shown(client, name):
    return client.app[METRICS].registry.get_sample_value(name)


async def made(client, count=1):
    """Return the ids of so many finished jobs."""
    jobs = [(await ask(client, "POST", "/jobs", 202, json=BODY))["id"] for _ in range(count)]
    for job in jobs:
        await until(client, job, "succeeded")
    return jobs


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Make a folder with a finished job, one that failed, and one that waits."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, asyncio.run(filled(folder))


async def filled(folder):
    async with service(folder) as client:
        (done,) = await made(client)
        late = await ask(client, "POST", "/jobs", 202, json=BODY | {"timeout_seconds": 0.001})
        await until(client, late["id"], "failed", "succeeded")
    async with service(folder, FakeEngine(step_seconds=None)) as client:
        waits = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
    return done, late["id"], waits


@pytest.mark.parametrize(
    ("column", "value", "number"),
    [*((*case, OVER) for case in CASES), *((*case, WAITS) for case in FIRST)],
)
async def test_a_wrong_row_is_set_aside_at_the_start(tmp_path, kept, column, value, number):
    """Kept as it was, with the reason, logged and counted; all other jobs are as before."""
    folder, jobs = kept
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    spoil(copy, jobs[number], column, value)
    others = [job for job in jobs if job != jobs[number]]
    with capture_logs() as lines:
        async with service(copy) as client:
            for job in others:
                await until(client, job, "succeeded", "failed")
            page = await ask(client, "GET", "/jobs", 200)
            assert [job["id"] for job in page["jobs"]] == others[::-1]
            await ask(client, "GET", f"/jobs/{jobs[number]}", 404)
            await client.app[DURABLE]._store_metrics.count()
            assert shown(client, "sd_store_rows_set_aside") == 1
            await made(client)
    ((source, reason, content),) = set_aside(copy)
    assert source == "jobs"
    assert column in reason or column == "finished_at"
    assert json.loads(content)["seq"] > 0
    told = [line for line in lines if line["event"] == "row_set_aside"]
    assert [line["log_level"] for line in told] == ["error"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("state", "flying"), ("request", "{"), ("metadata", b"\xff"), ("created_at", "x")],
)
async def test_a_row_that_is_spoilt_while_it_runs_is_set_aside(tmp_path, column, value):
    """By whatever meets it first: the list, the job itself, its events, its end, a repetition."""
    key = {"Idempotency-Key": "order-1"}
    ways = {
        "list": lambda client, _: ask(client, "GET", "/jobs", 200),
        "get": lambda client, job: ask(client, "GET", f"/jobs/{job}", 404),
        "events": lambda client, job: ask(client, "GET", f"/jobs/{job}/events", 404),
        "image": lambda client, job: ask(client, "GET", f"/jobs/{job}/image", 404),
        "delete": lambda client, job: ask(client, "DELETE", f"/jobs/{job}", 404),
        "again": lambda client, _: ask(client, "POST", "/jobs", 202, json=BODY, headers=key),
    }
    async with service(tmp_path) as client:
        for name, way in ways.items():
            sound, spoilt = await made(client, 2)
            if name == "again":
                order = await ask(client, "POST", "/jobs", 202, json=BODY, headers=key)
                spoilt = order["id"]
                await until(client, spoilt, "succeeded")
            before = len(set_aside(tmp_path))
            spoil(tmp_path, spoilt, column, value)
            await way(client, spoilt)
            assert len(set_aside(tmp_path)) == before + 1
            assert (await until(client, sound, "succeeded"))["id"] == sound
            await client.app[DURABLE]._sweep_once()
            await client.app[DURABLE]._store_metrics.count()


async def test_figures_and_sweeps_pass_over_wrong_rows(tmp_path):
    """They look at columns, whatever these hold."""
    async with service(tmp_path) as client:
        for column, value in CASES:
            if column != "id":
                spoil(tmp_path, (await made(client))[0], column, value)
        await client.app[DURABLE]._sweep_once()
        await client.app[DURABLE]._store_metrics.count()
        await made(client)
        page = await ask(client, "GET", "/jobs?limit=100", 200)
        assert [job["state"] for job in page["jobs"]] == ["succeeded"]


@pytest.mark.parametrize(
    "row",
    [
        *(("alice", "soon", 3), ("alice", 2**62, 3), ("alice", 1.5, 3), (b"alice", 1, 3)),
        *(("alice", 29_000_000, "three"), ("alice", 29_000_000, -3), ("", 29_000_000, 3)),
        ("alice", 29_000_000, 2**62),
    ],
)
async def test_wrong_counts_of_images_are_set_aside(tmp_path, row):
    """A quota is the sum of those that can be true."""
    async with service(tmp_path) as client:
        await made(client)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("INSERT INTO usage VALUES (?, ?, ?)", row)
    async with service(tmp_path) as client:
        left = client.app[ALLOWANCE].images_left("alice", Limits(images_per_day=9))
        assert left.remaining == 9
    assert [source for source, _, _ in set_aside(tmp_path)] == ["usage"]
    async with service(tmp_path) as client:
        await made(client)
    assert len(set_aside(tmp_path)) == 1


def packed(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


ABOUT = json.dumps({"media_types": ["image/png"], "metadata": {}})


def no_png(path, _png):
    packed(path, **{"0": b"GIF89a" + b"x" * 99, "about.json": ABOUT})


def half_png(path, png):
    packed(path, **{"0": png[: len(png) // 2], "about.json": ABOUT})


def other_size(path, png):
    packed(path, **{"0": png[:16] + b"\0\0\1\x40" + png[20:], "about.json": ABOUT})


def other_type(path, png):
    about = json.dumps({"media_types": ["text/html"], "metadata": {}})
    packed(path, **{"0": png, "about.json": about})


def deflated(path, png):
    packed(path, zipfile.ZIP_DEFLATED, **{"0": png + bytes(2**28), "about.json": ABOUT})


def deflated_about(path, png):
    about = json.dumps({"media_types": ["image/png"], "metadata": " " * 2**27})
    packed(path, zipfile.ZIP_DEFLATED, **{"0": png, "about.json": about})


def no_about(path, png):
    packed(path, **{"0": png})


def odd_about(path, png):
    packed(path, **{"0": png, "about.json": "[]"})


def deep_about(path, png):
    packed(path, **{"0": png, "about.json": "[" * 100_000})


def no_image(path, _png):
    packed(path, **{"about.json": ABOUT})


def none_listed(path, png):
    packed(path, **{"0": png, "about.json": '{"media_types": [], "metadata": {}}'})


def no_zip(path, png):
    path.write_bytes(png)


def empty(path, _png):
    path.write_bytes(b"")


def link(path, _png):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def link_to_nothing(path, _png):
    path.unlink()
    path.symlink_to("/nonexistent")


def pipe(path, _png):
    path.unlink()
    os.mkfifo(path)


def folder(path, _png):
    path.unlink()
    path.mkdir()


def many_members(path, png):
    packed(path, **{"0": png, "about.json": ABOUT, **{f"x{n}": b"" for n in range(2000)}})


RESULTS = (
    *(no_png, half_png, other_size, other_type, deflated, deflated_about, no_about, odd_about),
    *(deep_about, no_image, none_listed, no_zip, empty, link, link_to_nothing, pipe, folder),
    many_members,
)


@pytest.mark.parametrize("damage", RESULTS)
async def test_a_result_that_is_not_what_was_written_is_not_served(tmp_path, damage):
    """``result_damaged``, in every format, counted; a repetition is made anew."""
    key = {"Idempotency-Key": "order-1"}
    async with service(tmp_path, results_max_age_seconds=60) as client:
        sound = (await made(client))[0]
        async with client.get(f"/jobs/{sound}/image?format=png") as answer:
            png = await answer.read()
        await ask(client, "POST", "/generate", 200, json=BODY, headers=key)
        job = (await ask(client, "GET", "/jobs", 200))["jobs"][0]["id"]
        damage(tmp_path / "results" / f"{job}.zip", png)
        for kind in ("png", "webp", "jpeg"):
            problem = await ask(client, "GET", f"/jobs/{job}/image?format={kind}", 500)
            assert problem["code"] == "result_damaged"
        await client.app[DURABLE]._store_metrics.count()
        assert shown(client, "sd_results_damaged_total") == 3
        await ask(client, "GET", f"/jobs/{job}", 200)
        assert (await events(client, job))[-1]["event"] == "finished"
        await ask(client, "POST", "/generate", 200, json=BODY, headers=key)
        results = client.app[DURABLE].results
        await results.delete(job)
        await results.sweep(0, 0)
        await results.clean([])
        async with client.get(f"/jobs/{sound}/image?format=png") as answer:
            assert await answer.read() == png


async def test_a_folder_of_the_version_before_is_taken_over(tmp_path, monkeypatch):
    """Its jobs are finished, its rows are kept; and that version refuses the newer file."""
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
    with closing(schema.connect(tmp_path / FILE, 1.0)) as connection:
        connection.execute(
            "INSERT INTO jobs (id, key, state, request, request_id, trace_id, priority, created_at,"
            " attempts, steps_done, error_code, error_detail, model_version, idempotency_digest)"
            " VALUES (?, 'anonymous', 'queued', ?, 'r', '', 0, 1.0, 0, 0, '', '', '', '')",
            ("0" * 32, json.dumps({"prompt": "a", "width": 64, "height": 64, "steps": 1})),
        )
    monkeypatch.undo()
    async with service(tmp_path) as client:
        await until(client, "0" * 32, "succeeded")
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
    with pytest.raises(StoreError, match="newer version"):
        schema.connect(tmp_path / FILE, 1.0)


def test_no_setting_makes_a_row_that_is_no_row_of_ours():
    """The latest deadline is one that can be read again."""
    with pytest.raises(ConfigError, match="REQUEST_TIMEOUT_SECONDS"):
        Config(request_timeout_seconds=2e10)
    assert moment(time.time() + Config(request_timeout_seconds=1e10).request_timeout_seconds)
