"""Exemplars: from a bucket to a request."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from service.telemetry.exemplars import exemplar

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("request_id", "trace_id", "expected"),
    [
        ("mine", "", {"request_id": "mine"}),
        ("mine", TRACE, {"request_id": "mine", "trace_id": TRACE}),
        ("", TRACE, {"trace_id": TRACE}),
        ("", "", None),
    ],
)
def test_an_exemplar_names_the_request_and_its_trace(request_id, trace_id, expected):
    """Where there is neither there is no exemplar: an empty one is useless to a reader."""
    assert expected == exemplar(request_id, trace_id)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (78, ["request_id", "trace_id"]),
        (79, ["request_id"]),
        (118, ["request_id"]),
        (119, ["trace_id"]),
    ],
)
def test_what_does_not_fit_into_128_characters_is_left_out(length, expected):
    """The request id stays as long as it fits; then the trace id, if there is room."""
    assert expected == list(exemplar("r" * length, TRACE) or {})


@pytest.mark.parametrize("length", range(70, 130))
def test_every_exemplar_is_one_that_the_client_library_takes(length):
    """It raises for a longer one, and the request would fail with it."""
    histogram = Histogram("a_seconds", "A histogram.", registry=CollectorRegistry())
    histogram.observe(0.5, exemplar("r" * length, TRACE))
