"""The command line."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from service.__main__ import COMMANDS, main

READY = {"status": "healthy", "model_loaded": True}


@pytest.fixture
def answering(monkeypatch):
    """Serve one health report on a free port and point API_PORT at it."""
    report = dict(READY)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report).encode()
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a cat", "--steps", "0"], "steps"),
        (["a cat", "--width", "300"], "width"),
        ([""], "prompt"),
        (["a cat", "-o", "/no/such/folder/out.png"], "--output"),
    ],
)
def test_generate_checks_its_arguments_like_a_request(arguments, words, capsys):
    """What the service would refuse, the command refuses, before torch is imported."""
    assert main(["generate", *arguments]) == 2
    assert words in capsys.readouterr().err


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
