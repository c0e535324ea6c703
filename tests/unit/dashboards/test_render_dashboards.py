import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from dashboards.substitution import VARIABLE, panels_of, seconds
from scripts import render_dashboards
from scripts.render import browser, bundle
from scripts.render.browser import CannotRender
from scripts.render.prometheus import Prometheus
from scripts.render.questions import Span, ask, variables_of

SHIPPED = Path(render_dashboards.__file__).parents[1] / "dashboards"
NO_DATA = "absent_metric"
BROKEN = "sum("


class FakePrometheus(ThreadingHTTPServer):
    """Answers as Prometheus does, with the same small series for every query."""

    daemon_threads = True
    value = "3"
    scrape = "15s"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def queries(self) -> list[str]:
        return [parameters["query"] for _, parameters in self.asked if "query" in parameters]


class Handler(BaseHTTPRequestHandler):
    server: FakePrometheus

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        what = url.path.rpartition("/")[2]
        parameters = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.asked.append((what, parameters))
        status, data = self._data(what, parameters)
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _data(self, what: str, parameters: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if what == "targets":
            found = [{"scrapeInterval": self.server.scrape}]
            return 200, {"status": "success", "data": {"activeTargets": found}}
        if what == "query_exemplars":
            return 200, {"status": "success", "data": []}
        if parameters["query"] == BROKEN:
            return 400, {"status": "error", "error": "parse error: unclosed left parenthesis"}
        if what == "query":
            point = {"value": [float(parameters["time"]), self.server.value]}
            return 200, self._result("vector", parameters, point)
        start, end, step = (float(parameters[name]) for name in ("start", "end", "step"))
        times = [start + index * step for index in range(int((end - start) / step) + 1)]
        points = {"values": [[at, self.server.value] for at in times]}
        return 200, self._result("matrix", parameters, points)

    def _result(
        self, kind: str, parameters: dict[str, str], points: dict[str, Any]
    ) -> dict[str, Any]:
        series = [{"metric": {"le": "1.0", "instance": "host:1"}, **points}]
        found = [] if parameters["query"] == NO_DATA else series
        return {"status": "success", "data": {"resultType": kind, "result": found}}

    def log_message(self, *_: object) -> None:
        """Say nothing: the test's own output counts."""


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with FakePrometheus() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def panel(title: str, *exprs: str, kind: str = "timeseries", **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "type": kind,
        "title": title,
        "gridPos": {"x": 0, "y": 0, "w": 12, "h": 6},
        "options": {},
        "fieldConfig": {"defaults": {}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": "{{instance}}"}
            for index, expr in enumerate(exprs)
        ],
        **more,
    }


def dashboard(*panels: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "Test", "uid": "test", "panels": list(panels), **more}


@pytest.fixture
def check(prometheus, tmp_path):
    """Look through a dashboard of the given panels without drawing it; return the status."""

    def run(*panels: dict[str, Any], options: tuple[str, ...] = ()) -> int:
        (tmp_path / "test.json").write_text(json.dumps(dashboard(*panels)), encoding="utf-8")
        where = ["--prometheus", prometheus.url, "--dashboards", str(tmp_path), "--check"]
        return render_dashboards.main([*where, *options])

    return run


def span(length: float = 900, scrape: float = 15) -> Span:
    return Span(start=1_000_000.0, end=1_000_000.0 + length, scrape=scrape, width=1600)


def test_full_panels_are_well(check, capsys):
    """A dashboard whose queries all return numbers has nothing to name."""
    assert check(panel("Full", "up")) == 0
    assert capsys.readouterr().out == "test: 1 panels\n"


def test_empty_panel_is_named(check, capsys):
    """A panel whose queries return nothing is named, with status 1."""
    assert check(panel("Full", "up"), panel("Empty", NO_DATA)) == 1
    assert "test: no data: Empty (A)\n" in capsys.readouterr().out


def test_empty_panel_can_be_allowed(check, capsys):
    """--allow-empty names the panel all the same, with status 0."""
    assert check(panel("Empty", NO_DATA), options=("--allow-empty",)) == 0
    assert "test: no data: Empty (A)\n" in capsys.readouterr().out


def test_nothing_but_nan_is_no_data(check, prometheus, capsys):
    """A division of nothing by nothing is no number to show."""
    prometheus.value = "NaN"
    assert check(panel("Ratio", "a / b")) == 1
    assert "test: no data: Ratio (A)\n" in capsys.readouterr().out


def test_query_error_is_named_with_its_reason(check, capsys):
    """A query that Prometheus refuses fails the run even where empty panels may be."""
    assert check(panel("Broken", BROKEN), options=("--allow-empty",)) == 1
    assert "query error: Broken (A): parse error: unclosed" in capsys.readouterr().out


def test_unknown_variable_is_a_query_error(check, prometheus, capsys):
    """A variable that nobody set is named, and the query is not asked."""
    assert check(panel("Unset", 'up{zone="$zone"}')) == 1
    assert "query error: Unset (A): unknown variable $zone\n" in capsys.readouterr().out
    assert prometheus.queries == []


def test_partly_empty_panel_is_named_only(check, capsys):
    """One query of several without data is said, and is no failure."""
    assert check(panel("Half", "up", NO_DATA)) == 0
    assert "test: no data in some queries: Half (B)\n" in capsys.readouterr().out


def test_panels_in_a_collapsed_row_are_asked(check, prometheus):
    """A collapsed row hides its panels from the page, not from the check."""
    row = {"type": "row", "title": "Row", "panels": [panel("Inside", "inside")]}
    assert check(row) == 0
    assert prometheus.queries == ["inside"]


def test_grafanas_intervals_are_filled_in(check, prometheus):
    """$__rate_interval is four scrapes, or one more than the step; $__range the whole time."""
    check(
        panel("Fine", "rate(a[$__rate_interval])"),
        panel("Coarse", "rate(b[$__rate_interval])", interval="5m"),
        panel("Whole", "increase(c[$__range]) + d[${__interval}]"),
        options=("--from", "30m"),
    )
    assert prometheus.queries == ["rate(a[60s])", "rate(b[315s])", "increase(c[1800s]) + d[15s]"]


def test_slower_scrapes_widen_the_interval(check, prometheus):
    """A Prometheus that scrapes every minute is asked for the rate over four."""
    prometheus.scrape = "1m"
    check(panel("Rate", "rate(a[$__rate_interval])"))
    assert prometheus.queries == ["rate(a[240s])"]


def test_variable_of_the_command_line_wins(check, prometheus):
    """--variable replaces what the dashboard starts with."""
    check(panel("Up", 'up{job="$job"}'), options=("--variable", "job=other"))
    assert prometheus.queries == ['up{job="other"}']


def test_variables_start_as_the_dashboard_has_them():
    """All is the pattern that the variable names; several values are literal alternatives."""
    variables = [
        {"name": "all", "allValue": ".+", "current": {"value": "$__all"}},
        {"name": "any", "current": {"value": ["$__all"]}},
        {"name": "job", "current": {"value": ["a.b", "c"]}},
        {"name": "text", "current": {"value": "as it is"}},
    ]
    assert variables_of({"templating": {"list": variables}}) == {
        "all": ".+",
        "any": ".*",
        "job": r"a\\.b|c",
        "text": "as it is",
    }


def test_shipped_dashboards_leave_no_variable(prometheus, tmp_path):
    """Every query of the dashboards of this project is asked with all variables filled in."""
    arguments = ["--prometheus", prometheus.url, "--check", "--out", str(tmp_path)]
    assert render_dashboards.main(arguments) == 0
    assert len(prometheus.queries) > len(list(SHIPPED.glob("*.json")))
    assert [query for query in prometheus.queries if VARIABLE.search(query)] == []


@pytest.mark.parametrize(
    ("width", "length", "scrape", "step"),
    [(24, 900, 1, 1), (8, 900, 1, 2), (8, 3600, 15, 15), (8, 86400, 15, 300)],
)
def test_step_is_no_finer_than_pixels_and_scrapes(width, length, scrape, step):
    """A panel asks for as many points as it has pixels, and no more than were scraped."""
    assert span(length, scrape).step({"gridPos": {"w": width}}) == step


def test_annotations_join_points_without_a_gap(prometheus):
    """An alert that fires for the whole time is one span from the first point to the last."""
    annotation = {"name": "Alerts", "expr": "ALERTS", "iconColor": "red", "step": "15s"}
    shown = dashboard(panel("Up", "up"), annotations={"list": [annotation]})
    content, _ = ask(shown, Prometheus(url=prometheus.url), span(), {})
    assert [one["name"] for one in content["annotations"]] == ["Alerts"]
    assert len(content["annotations"][0]["spans"]) == 1


def test_one_line_says_that_prometheus_is_not_there(capsys):
    """Without an answer there is no image: status 2 and one line."""
    assert render_dashboards.main(["--prometheus", "http://127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("render_dashboards: no answer from http://127.0.0.1:1")
    assert error.count("\n") == 1


def test_one_line_says_which_program_is_missing(prometheus, monkeypatch, tmp_path, capsys):
    """Without Node.js the line names it and the cure, before anything is asked."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert render_dashboards.main(["--prometheus", prometheus.url]) == 2
    assert re.fullmatch(
        r"render_dashboards: node is missing: install .*apt-get install nodejs\)\n",
        capsys.readouterr().err,
    )
    assert prometheus.queries == []


def test_unknown_dashboard_is_refused_with_those_there_are(prometheus, capsys):
    """--only takes names of files, and says them."""
    arguments = ["--prometheus", prometheus.url, "--only", "weather"]
    assert render_dashboards.main(arguments) == 2
    error = capsys.readouterr().err
    assert "no dashboard weather; there are: generation, gpu, service" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "soon"],
        ["--from", "0s"],
        ["--width", "12"],
        ["--width", "wide"],
        ["--variable", "job"],
    ],
)
def test_senseless_arguments_are_refused(arguments, capsys):
    """Each is refused with a reason before anything is done."""
    with pytest.raises(SystemExit) as refused:
        render_dashboards.main(arguments)
    assert refused.value.code == 2
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("1m30s", 90), ("1h", 3600), ("1ms", 0.001)]
)
def test_durations_are_read(text, value):
    """Prometheus writes durations in one or more parts."""
    assert seconds(text) == value


def test_page_keeps_data_in_its_place(tmp_path):
    """A label that looks like the end of a script stays data."""
    program = tmp_path / "page.js"
    program.write_text("'</script>'", encoding="utf-8")
    program.with_suffix(".css").write_text("body {}", encoding="utf-8")
    html = bundle.page({"title": "</script><script>alert()</script>"}, program)
    assert html.count("</script>") == 2
    assert "alert()" in html


def test_browser_that_cannot_start_is_quoted(tmp_path):
    """What Chromium said before it ended by itself is in the error."""
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho no usable sandbox >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o700)
    with pytest.raises(CannotRender, match="Chromium ended by itself: no usable sandbox"):
        browser.draw(str(program), "", 900, 1000)


KINDS = ("timeseries", "stat", "bargauge", "heatmap", "state-timeline", "table", "text")


@pytest.fixture
def render(prometheus, tmp_path):
    """Draw one panel below the other, 900 pixels wide; return the status."""
    try:
        browser.require()
    except CannotRender as reason:
        pytest.skip(str(reason))
    if not bundle.installed():
        pytest.skip("the npm packages are not installed: run scripts/render_dashboards.py once")

    def run(*panels: dict[str, Any]) -> int:
        for row, one in enumerate(panels):
            one["gridPos"] = {"x": 0, "y": 6 * row, "w": 24, "h": 6}
        (tmp_path / "kinds.json").write_text(json.dumps(dashboard(*panels)), encoding="utf-8")
        where = ["--dashboards", str(tmp_path), "--out", str(tmp_path), "--width", "900"]
        return render_dashboards.main(["--prometheus", prometheus.url, *where])

    return run


def test_every_kind_of_panel_is_drawn(render, tmp_path, capsys):
    """One PNG as wide as asked for, with colours in it, and nothing that failed to draw."""
    panels = [panel(kind, "up", kind=kind) for kind in KINDS[:-1]]
    panels[-1]["targets"][0] |= {"format": "table", "instant": True}
    text = panel("text", kind="text", options={"content": "**said**"})
    assert render(*panels, text) == 0
    assert "not drawn" not in capsys.readouterr().out
    with Image.open(tmp_path / "kinds.png") as image:
        assert image.width == 900
        assert image.height > len(KINDS) * 6 * 38
        colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    assert len(colors) > 100


def test_panel_of_another_kind_is_named_and_leaves_the_others(render, tmp_path, capsys):
    """A gauge cannot be drawn: it is named with the reason, and the rest is drawn, status 1."""
    assert render(panel("Dial", "up", kind="gauge"), panel("Line", "up")) == 1
    out = capsys.readouterr().out
    assert "kinds: not drawn: Dial: Not drawn: there is no drawing for panels of type gauge" in out
    assert out.count("not drawn: ") == 1
    assert (tmp_path / "kinds.png").exists()


def test_every_kind_of_the_shipped_dashboards_can_be_drawn():
    """No dashboard of this project has a panel of another kind than those tested here."""
    shipped = [json.loads(file.read_text(encoding="utf-8")) for file in SHIPPED.glob("*.json")]
    assert {one["type"] for each in shipped for one in panels_of(each)} <= set(KINDS)
