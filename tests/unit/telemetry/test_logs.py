"""Logs: one form for all lines."""

import json
import logging
import warnings

import pytest
import structlog

from service.app import create_app
from service.config.table import Config
from service.core.spec import GenerationSpec
from service.telemetry import logs
from tests.support.simulation.fake_engine import FakeEngine


def lines(capsys) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_on_stderr(capsys):
    """Event, level, time, logger and the ids it was given."""
    logs.configure(Config(log_format="json"))
    structlog.get_logger("service.jobs").info("job_queued", job_id="1", depth=2)
    (line,) = lines(capsys)
    assert str(line.pop("timestamp")).endswith("Z")
    expected = {
        "event": "job_queued",
        "level": "info",
        "logger": "service.jobs",
        "job_id": "1",
        "depth": 2,
    }
    assert expected == line


def test_lines_of_libraries_have_the_same_form(capsys):
    """Aiohttp and asyncio log through the standard library."""
    logs.configure(Config(log_format="json"))
    logging.getLogger("aiohttp.server").error("Error in %s", "a handler")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == (
        "Error in a handler",
        "error",
        "aiohttp.server",
    )


def test_warnings_of_python_are_lines_too(capsys):
    """They would be the only ones without a form."""
    logs.configure(Config(log_format="json"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("too old", DeprecationWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert "too old" in str(line["event"])


@pytest.mark.parametrize(("level", "expected"), [("WARNING", ["b"]), ("INFO", ["a", "b"])])
def test_lines_below_the_level_are_left_out(capsys, level, expected):
    """LOG_LEVEL is the least severe level logged."""
    logs.configure(Config(log_format="json", log_level=level))
    log = structlog.get_logger("service")
    log.info("a")
    log.warning("b")
    assert expected == [line["event"] for line in lines(capsys)]


@pytest.mark.parametrize(("log_prompts", "expected"), [(False, None), (True, "a boat")])
def test_prompts_are_logged_only_when_asked_for(capsys, log_prompts, expected):
    """LOG_PROMPTS; whoever writes the line cannot get it wrong."""
    logs.configure(Config(log_format="json", log_prompts=log_prompts))
    structlog.get_logger("service").info("job_queued", prompt="a boat", negative_prompt="a boat")
    (line,) = lines(capsys)
    assert (expected, expected) == (line.get("prompt"), line.get("negative_prompt"))


@pytest.mark.parametrize(("log_prompts", "shown"), [(False, False), (True, True)])
def test_prompts_inside_other_values_are_prompts_too(capsys, log_prompts, shown):
    """Objects, lists and requests are searched."""
    logs.configure(Config(log_format="json", log_prompts=log_prompts))
    body = {"prompt": "SECRET", "steps": 7, "more": [{"negative_prompt": "SECRET"}, (1, 2)]}
    request = GenerationSpec(prompt="SECRET", seed=5)
    structlog.get_logger("service").info("a", body=body, request=request)
    text = capsys.readouterr().err
    assert shown == ("SECRET" in text)
    line = json.loads(text.splitlines()[0])
    assert line["body"]["steps"] == 7
    assert line["body"]["more"][1] == [1, 2]


@pytest.mark.parametrize("log_prompts", [False, True])
async def test_a_whole_request_is_logged_without_its_prompts(capsys, aiohttp_client, log_prompts):
    """From the door to the job's end; LOG_PROMPTS=true shows them on the job's lines."""
    config = Config(data_dir="", log_format="json", log_level="DEBUG", log_prompts=log_prompts)
    logs.configure(config)
    client = await aiohttp_client(create_app(config, FakeEngine()))
    body = {"prompt": "SECRET one", "negative_prompt": "SECRET two", "steps": 1}
    async with client.post("/generate", json=body) as answer:
        assert answer.status == 200
    async with client.post("/generate", json={**body, "stepz": 1}) as answer:
        assert answer.status == 400
    text = capsys.readouterr().err
    events = [json.loads(line) for line in text.splitlines()]
    (queued,) = [event for event in events if event["event"] == "job_queued"]
    expected = ("SECRET one", "SECRET two") if log_prompts else (None, None)
    assert expected == (queued.get("prompt"), queued.get("negative_prompt"))
    assert queued["steps"] == 1
    assert log_prompts == ("SECRET" in text)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(capsys, log_format):
    """They hold prompts."""
    logs.configure(Config(log_format=log_format))

    def fail():
        prompt = "my " + "secret"
        raise ValueError(len(prompt))

    try:
        fail()
    except ValueError:
        structlog.get_logger("service").exception("request_failed")
    text = capsys.readouterr().err
    assert "ValueError: 9" in text
    assert "my secret" not in text


def test_what_is_bound_to_a_request_is_on_its_lines(capsys):
    """The middleware binds the id once."""
    logs.configure(Config(log_format="json"))
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        structlog.get_logger("service").info("a")
        logging.getLogger("a.library").warning("b")
    assert [line["request_id"] for line in lines(capsys)] == ["mine", "mine"]


def test_configuring_again_does_not_double_the_lines(capsys):
    """The engine's process and the tests call it as often as they like."""
    for _ in range(3):
        logs.configure(Config(log_format="json"))
    structlog.get_logger("service").info("a")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    ("log_format", "terminal", "expected"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_a_terminal_gets_colours_and_a_file_gets_json(log_format, terminal, expected):
    """Auto looks at where the lines go."""
    form = logs.formatter(Config(log_format=log_format), terminal=terminal)
    text = form.format(logging.LogRecord("a", logging.INFO, "a.py", 1, "hello", None, None))
    assert expected == text.startswith("{")
    assert ("\x1b[" in text) == (terminal and not expected)


def test_a_library_that_repeats_itself_is_heard_once_in_a_while():
    """Each logger by itself, and again when the time is over."""
    now = [0.0]
    seldom = logs.Seldom(60.0, lambda: now[0])
    heard = []
    for seconds, name in [(0, "a"), (59, "a"), (59, "b"), (60, "a"), (61, "a"), (119, "b")]:
        now[0] = seconds
        record = logging.LogRecord(name, logging.ERROR, "a.py", 1, "lost", None, None)
        heard.append(seldom.filter(record))
    assert heard == [True, False, True, True, False, True]
