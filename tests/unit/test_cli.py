"""The command line."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from service.__main__ import COMMANDS, main
from service.diffusion import catalog
from service.errors import ConfigError, ModelError, OutOfMemory, ServiceError, ValidationFailed

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
    """A service that cannot make pictures yet is not healthy."""
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


def test_an_unknown_model_is_one_line_and_exit_code_2(tmp_path, capsys):
    """A model that is nowhere is told before anything starts."""
    assert main(["--model-id", str(tmp_path / "nothing.ckpt")]) == 2
    assert capsys.readouterr().err.startswith("sd-api: The model cannot be loaded: ")


def test_a_taken_port_is_one_line_and_exit_code_2(answering, capsys):
    """A port in use is named, with the cure."""
    del answering
    assert main(["serve"]) == 2
    assert "set API_PORT to a free port" in capsys.readouterr().err


def test_models_lists_the_demo(capsys, tmp_path):
    """The bundled model is always installed."""
    assert main(["models", "--model-cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\t")[0] == "demo"


def test_models_lists_what_is_whole_beside_what_is_damaged(capsys, tmp_path):
    """One damaged folder hides no other model."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    (tmp_path / "whole.safetensors").touch()
    assert main(["models", "--model-cache-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["demo", "whole.safetensors"]


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
        (ModelError("x"), 2),
        (ValidationFailed({"x": ["y"]}), 2),
        (OutOfMemory("x"), 1),
        (ServiceError("x"), 1),
    ],
)
def test_exit_codes(monkeypatch, error, code):
    """2 is a wrong setting or argument; everything else that fails is 1."""

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
