"""The benchmark runs and its figures are sane; how fast anything is, no test can say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.service_process import running_service

ROOT = Path(__file__).parents[1]
SERVERS = ["service", "plain diffusers", "LitServe"]
KEY = "0123456789abcdef01234567"
SECONDS = 300
"""Reached only when something is broken: two quiet cores need 60."""


def benchmark(*words: object, folder: Path | None = None) -> tuple[int, str, list[str]]:
    """Run the script as the README says; return exit code, table and lines of errors."""
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "benchmark_performance.py", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # It ends all that it started.
            said, errors = process.communicate()
        # matplotlib tells of its first start on a machine.
        told = [line for line in errors.splitlines() if "font cache" not in line]
        return process.returncode, said, told


def sane(found: dict[str, Any], asked: int) -> None:
    """Insist that figures hang together: everybody got an image, and percentiles are in order."""
    assert (found["asked"], found["answered"]) == (asked, asked)
    assert (found["faults"], found["refusals"]) == ({}, {})
    assert 0 < found["p50"] <= found["p95"] <= found["longest"]
    assert 0 < found["mean"] <= found["longest"]
    assert 0 < found["images_per_second"] < found["steps_per_second"]


def lines(table: str) -> list[list[str]]:
    """Return the cells of every line of every table."""
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]


@pytest.mark.matrix
def test_the_service_beside_both_others(tmp_path):
    """Real servers, real images: each server has its turns, its figures and its ratios."""
    code, said, errors = benchmark(
        *("--compare", "--rows", "256x256/3", "--clients", "1,2", "--requests", 2),
        *("--rounds", 2, "--mixed", "256x256/2+256x256/6"),
        *("--out", tmp_path / "out"),
        folder=tmp_path,
    )

    assert (code, errors) == (0, []), said
    found = json.loads((tmp_path / "out" / "performance.json").read_text())
    assert found["servers"] == SERVERS
    assert found["rounds"] == 2
    assert found["machine"]["model"] == "demo"
    # The same images but for rounding, or they were not compared.
    assert found["differences"].keys() == {*SERVERS[1:]}
    assert all(apart < 0.1 for apart in found["differences"].values())
    one, two, mixed = found["points"]
    for point, asked in ((one, 4), (two, 8)):
        assert [each["server"] for each in point["servers"]] == SERVERS
        for each in point["servers"]:
            sane(each["all"], asked)
            assert sum(len(turn["answers"]) for turn in each["rounds"]) == asked
    for each in mixed["servers"]:
        sane(each["short"], 16)
        sane(each["long"], each["all"]["asked"] - 16)
    for point, part in ((one, "all"), (two, "all"), (mixed, "short"), (mixed, "long")):
        for each in point["servers"][1:]:
            assert all(ratio > 0 for ratio in each[part]["service_divided_by_this"].values())
    rows = lines(said)
    for clients in ("1", "2"):
        for server in SERVERS:
            assert [row[:3] for row in rows].count(["256x256/3", clients, server]) == 1
    for kind in ("short, 256x256/2", "long, 256x256/6"):
        assert [row[1] for row in rows if row[0] == kind] == SERVERS
    markdown = (tmp_path / "out" / "performance.md").read_text()
    assert said.strip() in markdown
    with Image.open(tmp_path / "out" / "performance.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 500
    assert not any(path.name == "client.py" for path in tmp_path.iterdir())  # LitServe's habit.


@pytest.fixture(scope="module")
def service():
    """Start a service that wants a key."""
    with running_service(API_KEYS=f"mine:{KEY}") as started:
        yield started


def test_a_running_service(service):
    """Alone, with its key: a table without ratios."""
    code, said, errors = benchmark(
        *("--url", service.url, "--api-key", KEY, "--rows", "256x256/2,320x256/2"),
        *("--clients", "2", "--requests", 4, "--mixed", "none"),
    )
    assert (code, errors) == (0, []), said
    rows = [row[:4] for row in lines(said)[2:]]
    assert rows == [[f"{size}/2", "2", "service", "4"] for size in ("256x256", "320x256")]
    assert "÷" not in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--api-key", "wrong"], "401 unauthorized"),
        ([], "401 unauthorized"),
        (["--api-key", KEY, "--rows", "1024x1024/4"], "sides of 256 to 768 pixels"),
        (["--api-key", KEY, "--rows", "256x256/51"], "allows 50 steps"),
    ],
)
def test_what_the_service_refuses_is_one_line(service, words, expected):
    """It names what is wrong and the cure; the exit code says that nothing was measured."""
    code, said, (error,) = benchmark("--url", service.url, *words)
    assert (code, said) == (2, "")
    assert expected in error


def test_an_address_that_nothing_listens_at():
    """One line, and no traceback."""
    code, said, (error,) = benchmark("--url", "http://127.0.0.1:9")
    assert (code, said) == (2, "")
    assert "nothing answers at http://127.0.0.1:9" in error


def test_a_model_that_does_not_load(tmp_path):
    """The service's own last words say why."""
    code, _, errors = benchmark("--model", tmp_path / "nothing", "--quick")
    assert code == 1
    assert any("There is no model" in line for line in errors)
    assert "Traceback" not in "\n".join(errors)
