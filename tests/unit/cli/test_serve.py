"""The command line."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from service.__main__ import COMMANDS, main
from service.errors import (
    ConfigError,
    GpuBusy,
    ModelError,
    ModelMissing,
    OutOfMemory,
    ServiceError,
    ValidationFailed,
)
from service.models import catalog
from tests.support.engine_extra import needs_engine

READY: dict[str, object] = {"status": "healthy", "model_loaded": True}


@pytest.fixture(autouse=True)
def own_signals():
    """Take back the handler that ``serve`` installs: it is this process's own here."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def answering(monkeypatch):
    """Serve one health report on a free port and point API_PORT at it.

    ``{"body": …}`` is served as that text, ``{"line": …}`` as no HTTP at all.
    """
    report = dict(READY)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "line" in report:
                self.wfile.write(str(report["line"]).encode())
                return
            body = str(report.get("body", json.dumps(report))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("API_PORT", str(server.server_port))
    yield report
    server.shutdown()
    thread.join()
    server.server_close()


def test_health_of_a_ready_service_is_exit_code_0(answering, capsys):
    """A container's health check passes, and the report is printed."""
    assert main(["health"]) == 0
    assert json.loads(capsys.readouterr().out) == answering


def test_health_of_a_loading_service_is_exit_code_1(answering):
    """A service that cannot make images yet is not healthy."""
    answering.update(status="loading", model_loaded=False)
    assert main(["health"]) == 1


def test_health_without_a_service_is_exit_code_1(monkeypatch, capsys):
    """Nothing that answers is said in one line, without a traceback."""
    monkeypatch.setenv("API_PORT", "1")
    assert main(["health"]) == 1
    assert capsys.readouterr().err.startswith("sd-api: no answer from http://127.0.0.1:1/health")


@pytest.mark.usefixtures("answering")
def test_health_asks_no_proxy(monkeypatch):
    """A container that reaches the world through a proxy still reaches itself directly."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert main(["health"]) == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"body": "{}"}, "is another service; see API_PORT"),
        ({"body": "[]"}, "is another service; see API_PORT"),
        ({"body": '"status model_loaded"'}, "is another service; see API_PORT"),
        ({"body": "<html>"}, "Expecting value"),
        ({"body": ""}, "Expecting value"),
        ({"line": "SSH-2.0-OpenSSH_9.2\r\n"}, "SSH-2.0-OpenSSH_9.2"),
        ({"line": ""}, "Remote end closed connection"),
    ],
)
def test_health_of_something_else_is_one_line_and_exit_code_1(answering, capsys, answer, words):
    """Another service on the port, or no web server, is said without a traceback."""
    answering.clear()
    answering.update(answer)
    assert main(["health"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("loaded", ["yes", 1, None])
def test_health_trusts_no_other_word_for_true(answering, loaded):
    """Only a report that says so is a ready service."""
    answering.update(model_loaded=loaded)
    assert main(["health"]) == 1


def test_a_wrong_setting_is_one_line_and_exit_code_2(capsys):
    """A typing error in a setting names it, its value and its limit."""
    assert main(["health", "--api-port", "70000"]) == 2
    assert capsys.readouterr().err == (
        "sd-api: A setting is wrong: API_PORT=70000: must be 65535 or less\n"
    )


@needs_engine
def test_an_unknown_model_is_one_line_and_its_exit_code(tmp_path, capsys):
    """A model that is nowhere is told before anything starts."""
    assert main(["--model-id", str(tmp_path / "nothing.ckpt")]) == 66
    assert capsys.readouterr().err.startswith("sd-api: The model cannot be loaded: ")


@needs_engine
def test_a_taken_port_is_one_line_and_its_exit_code(answering, capsys):
    """A port in use is named, with the cure."""
    del answering
    assert main(["serve"]) == 75
    assert "set API_PORT to a free port" in capsys.readouterr().err


def test_a_public_address_without_keys_is_one_line_and_exit_code_2(capsys):
    """The line names the cure."""
    assert main(["serve", "--api-host", "0.0.0.0", "--api-port", "0"]) == 2  # noqa: S104 - refused
    (line,) = capsys.readouterr().err.splitlines()
    assert "API_HOST=0.0.0.0" in line
    assert "ALLOW_UNAUTHENTICATED=true" in line


@needs_engine
def test_a_wrong_file_of_keys_is_one_line_and_exit_code_2(tmp_path, capsys):
    """Nothing listens for a moment without keys."""
    path = tmp_path / "keys"
    path.write_text("alice:short\n")
    arguments = ["--api-host", "127.0.0.1", "--api-port", "0", "--api-keys-file", str(path)]
    assert main(["serve", *arguments]) == 2
    assert "line 1 (alice) needs a secret" in capsys.readouterr().err.splitlines()[-1]


def test_a_wrong_key_in_the_environment_is_not_repeated(monkeypatch, capsys):
    """The error names the setting and the pair's place."""
    monkeypatch.setenv("API_KEYS", "alice:0123456789abcdef")
    assert main(["models"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sd-api: A setting is wrong: API_KEYS: pair 1 (alice) needs a secret")
    assert "0123456789abcdef" not in said


@needs_engine
@pytest.mark.usefixtures("answering")
def test_the_process_of_the_engine_inherits_no_secret(monkeypatch):
    """They leave the environment as soon as they are read."""
    word = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
    monkeypatch.setenv("API_KEYS", f"alice:{word}")
    monkeypatch.setenv("METRICS_TOKEN", word)
    assert main(["serve"]) == 75  # The port is taken; it comes that far.
    assert [name for name, value in os.environ.items() if word in value] == []


def test_models_lists_the_demo(capsys, tmp_path):
    """The bundled model is always installed."""
    assert main(["models", "--model-cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\t")[0] == "demo"


def test_models_lists_what_is_whole_beside_what_is_damaged(capsys, tmp_path):
    """One damaged folder hides no other model."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    shutil.copytree(catalog.DEMO_FOLDER, tmp_path / "whole")
    assert main(["models", "--model-cache-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["demo", "whole"]


def test_models_says_when_there_is_none_and_where_it_looked(capsys, tmp_path, monkeypatch):
    """An empty answer would leave open whether anything was found out."""
    monkeypatch.setattr(catalog, "DEMO_FOLDER", tmp_path / "demo")
    assert main(["models", "--model-cache-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"MODEL_CACHE_DIR={tmp_path}" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ModelError("x"), 65),
        (ModelMissing("x"), 66),
        (GpuBusy("x"), 75),
        (ValidationFailed({"x": ["y"]}), 2),
        (OutOfMemory("x"), 1),
        (ServiceError("x"), 1),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    """2 is a wrong setting or argument; what the table does not have is 1."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "models", (fail, "Fail."))
    assert main(["models"]) == code


def test_every_command_has_a_help_page():
    """``sd-api COMMAND --help`` explains each command and every setting."""
    for command in COMMANDS:
        page = subprocess.run(
            [sys.executable, "-m", "service", command, "--help"],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        ).stdout
        assert "--max-concurrent-requests" in page
        assert "Exit codes: 0 done" in page
