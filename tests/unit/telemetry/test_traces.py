"""Traces: whose, when which stage, and whether they are exported."""

import builtins
import sys
from typing import Any

import pytest
from multidict import CIMultiDict
from structlog.testing import capture_logs

from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.core.stage import StageTimes
from service.jobs.job import Job
from service.system import installation
from service.telemetry import span_export, traces
from service.telemetry.traces import Parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def read(traceparent: str, *tracestate: str) -> Parent | None:
    headers = CIMultiDict([("Traceparent", traceparent)])
    for value in tracestate:
        headers.add("Tracestate", value)
    return traces.parent(headers)


@pytest.mark.parametrize(
    ("flags", "sampled"), [("01", True), ("00", False), ("03", True), ("02", False), ("ff", True)]
)
def test_the_span_of_the_caller_is_read(flags, sampled):
    """Trace, span, and whether the caller records; of the flags only that bit counts."""
    expected = Parent(trace_id=TRACE, span_id=SPAN, sampled=sampled)
    assert expected == read(f"00-{TRACE}-{SPAN}-{flags}")


@pytest.mark.parametrize("rest", ["", "-", "-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_it_is_known(rest):
    """The specification promises that it begins in the same way."""
    expected = Parent(trace_id=TRACE, span_id=SPAN, sampled=True)
    assert expected == read(f"cc-{TRACE}-{SPAN}-01{rest}")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"0A-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"ff-{TRACE}-{SPAN}-01",
        f"{GOOD}-",
        f"{GOOD}-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 512}",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{'g' * 32}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        f"{GOOD}\n",
        f"{GOOD},{GOOD}",
    ],
)
def test_a_broken_header_is_as_good_as_none(broken):
    """The specification has the receiver begin anew, and never refuse."""
    assert read(broken) is None


@pytest.mark.parametrize("headers", [[], [("traceparent", GOOD), ("traceparent", GOOD)]])
def test_one_header_says_one_thing(headers):
    """Two of them cannot both be the parent."""
    assert traces.parent(CIMultiDict(headers)) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=1"], (("a", "1"),)),
        (["a=1,b=2"], (("a", "1"), ("b", "2"))),
        (["a=1", "b=2"], (("a", "1"), ("b", "2"))),
        ([" a=1 ,\t, b=2"], (("a", "1"), ("b", "2"))),
        (["tenant@system=v 1"], (("tenant@system", "v 1"),)),
        ([",".join(f"k{i}=1" for i in range(33))], ()),
        (["a=1,a=2"], ()),
        (["A=1"], ()),
        (["1a=1"], ()),
        (["1a@b=1"], (("1a@b", "1"),)),
        (["a=1,b"], ()),
        (["a=1=2"], ()),
        ([f"{'k' * 257}=1"], ()),
        ([f"a={'v' * 257}"], ()),
        (["a=\u00e4"], ()),
        ([], ()),
    ],
)
def test_what_others_added_is_passed_on_or_dropped_as_a_whole(given, expected):
    """A broken ``tracestate`` does not break the trace."""
    parent = read(GOOD, *given)
    assert parent is not None
    assert expected == parent.state


def finished(times: StageTimes, *, started: float = 10.0, ended: float = 20.0) -> Job:
    job = Job(request=GenerationSpec(prompt="a boat"), created=5.0)
    job.begin(started)
    job.draw(JobFinished(job_id=job.id, epoch=1, images=(), times=times), "fake-1")
    job.drawn = ended
    return job


def test_the_stages_of_a_job_follow_each_other_from_its_start_to_its_end():
    """Those before denoising stand at the start, those after it at the end."""
    times = StageTimes(text_encode=1.0, denoise=3.0, vae_decode=2.0, safety=0.5)
    found = traces.phases(finished(times))
    expected = [
        ("text_encode", 10.0, 11.0, 1.0),
        ("denoise", 11.0, 17.5, 3.0),
        ("vae_decode", 17.5, 19.5, 2.0),
        ("safety", 19.5, 20.0, 0.5),
    ]
    assert expected == [(p.stage, p.start, p.end, p.device_seconds) for p in found]


def test_a_stage_that_the_model_lacks_is_no_phase():
    """A model without a checker, and an engine that measures denoising alone."""
    found = traces.phases(finished(StageTimes(denoise=3.0)))
    assert [(p.stage, p.start, p.end) for p in found] == [("denoise", 10.0, 20.0)]


def test_stages_longer_than_the_time_that_passed_are_cut_to_it():
    """They are measured by another process."""
    times = StageTimes(text_encode=6.0, denoise=1.0, vae_decode=6.0)
    found = traces.phases(finished(times, started=0.0, ended=6.0))
    assert [(p.start, p.end) for p in found] == [(0.0, 3.0), (3.0, 3.0), (3.0, 6.0)]


def test_a_job_without_images_has_no_stages():
    """It did not report any."""
    job = Job(request=GenerationSpec(prompt="a boat"))
    job.begin()
    assert traces.phases(job) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://a:4318"}, "http://a:4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/v1/traces"}, "http://b/v1/traces"),
        ({ENDPOINT: "http://a:4318", "OTEL_SDK_DISABLED": "true"}, ""),
        ({ENDPOINT: "http://a:4318", "OTEL_SDK_DISABLED": "false"}, "http://a:4318"),
        ({ENDPOINT: "http://a:4318", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_tracing_is_on_where_an_endpoint_is_configured(environment, expected):
    """By OpenTelemetry's own variables; an empty one counts as unset, as it says."""
    assert expected == span_export.endpoint(environment)


def test_without_an_endpoint_nothing_is_imported(monkeypatch):
    """The extra costs nothing to those who do not use it, installed or not."""
    monkeypatch.setitem(sys.modules, "service.telemetry.spans", None)
    assert span_export.start({}) is None


def test_an_endpoint_without_the_extra_is_a_warning_that_names_the_cure(monkeypatch):
    """The service starts, and says why no spans come."""
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "service.telemetry.spans", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)
    with capture_logs() as lines:
        assert span_export.start({ENDPOINT: "http://localhost:4318"}) is None
    expected = {
        "event": "tracing_extra_missing",
        "log_level": "warning",
        "missing": "opentelemetry",
        "cure": installation.here().extras("engine", "tracing"),
    }
    assert [expected] == lines
