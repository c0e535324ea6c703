"""The command line of the benchmark: what it takes, and what it refuses in one line."""

import argparse
import json
from typing import Any

import pytest

from scripts import benchmark_performance
from scripts.benchmark import servers
from scripts.benchmark.rows import BenchmarkError, bounds
from service.app import create_app
from service.config.table import Config
from service.http.schema import openapi
from tests.support.simulation.fake_engine import FakeEngine


def limits(**settings: Any) -> dict[str, Any]:
    """Return what a service with these settings says of its fields."""
    app = create_app(Config(data_dir="", **settings), FakeEngine())
    return bounds(json.loads(openapi.current(app)))


def given(*words: object) -> argparse.Namespace:
    return benchmark_performance.parser().parse_args([str(word) for word in words])


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
        benchmark_performance.points(given("--rows", name), limits())
    assert name in str(refused.value)


def test_of_the_defaults_what_is_allowed_is_left(capsys):
    """A service for small images is measured with small ones, and the others are named."""
    small = limits(min_size=256, max_size=512, max_steps=20)
    found = benchmark_performance.points(given(), small)
    names = dict.fromkeys(point.rows[0].name for point in found if not point.mixed)
    assert [*names] == ["256x256/20", "512x512/20"]
    assert capsys.readouterr().err.count("left out:") == 2


def test_the_limits_are_those_of_the_description():
    """Of the settings that the service has."""
    known = limits(min_size=128, max_size=1024, max_steps=99)
    side, steps = known["width"], known["steps"]
    assert (side["minimum"], side["maximum"], side["multipleOf"]) == (128, 1024, 64)
    assert steps["maximum"] == 99
    with pytest.raises(BenchmarkError, match="is it this service"):
        bounds({"paths": {}})


@pytest.mark.parametrize("missing", ["litserve", "matplotlib"])
def test_a_missing_package_is_named_with_its_cure(monkeypatch, capsys, missing, tmp_path):
    """Before anything is started."""
    for module in (benchmark_performance, servers):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else True)
    assert benchmark_performance.main(["--compare", "--out", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert missing in said.lower()
    assert "pip install -c constraints.txt -e '.[engine,benchmark]'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compare", "--url", "http://127.0.0.1:9"], "leave out --url"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
        (["--out", "/proc"], "--out /proc/performance.json: cannot be written"),
        (["--write"], "--write needs --compare"),
        # Neither a key nor a place on this machine gets into the document.
        (["--compare", "--write", "--api-key", "secret"], "--api-key is of a running service"),
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


def test_a_folder_of_this_machine_is_not_in_the_document(capsys):
    """Its command is shown as it was typed, so the two arguments exclude each other."""
    with pytest.raises(SystemExit):
        given("--out", "somewhere", "--write")
    assert "--write: not allowed with argument --out" in capsys.readouterr().err


def test_files_go_into_a_folder_that_is_created(tmp_path, monkeypatch):
    """Whether they can be written is known before anything is measured."""
    monkeypatch.setattr(benchmark_performance, "find_spec", lambda _name: True)
    benchmark_performance.check(given("--out", tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert not any((tmp_path / "new").iterdir())
