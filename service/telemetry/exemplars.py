"""What leads from a bucket of a histogram to one request."""

from typing import Final

MOST_CHARACTERS: Final = 128
"""OpenMetrics 1.0: names and values of one exemplar together; more fails the observation."""


def exemplar(request_id: str, trace_id: str = "") -> dict[str, str] | None:
    """Return the labels of an exemplar, or None where there is nothing to point at.

    The request id finds the log lines and is there without tracing, so it is kept first; a
    client may give one so long that the trace id has no room next to it, or that itself has none.
    """
    labels: dict[str, str] = {}
    room = MOST_CHARACTERS
    for name, value in (("request_id", request_id), ("trace_id", trace_id)):
        if value and len(name) + len(value) <= room:
            labels[name] = value
            room -= len(name) + len(value)
    return labels or None
