"""Spans as a collector gets them; whoever imports this is skipped without the extra tracing."""

from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra 'tracing' is not installed")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra 'tracing' is not installed"
)

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from service.telemetry import spans

BODY = {"prompt": "SECRET", "negative_prompt": "SECRET", "width": 256, "height": 256, "steps": 2}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1,other=2"}
ERROR = trace_pb2.Status.STATUS_CODE_ERROR
SERVER = trace_pb2.Span.SPAN_KIND_SERVER
CHATTY = spans.CHATTY


@dataclass(kw_only=True)
class Collector:
    """What a collector received."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def groups(self) -> list[Any]:
        return [
            group
            for body in self.bodies
            for group in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.groups[0].resource)

    @property
    def spans(self) -> dict[str, Any]:
        """The spans by name; a test makes each once."""
        found = [
            span for group in self.groups for scope in group.scope_spans for span in scope.spans
        ]
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


def attributes(thing: Any) -> dict[str, Any]:
    return {row.key: getattr(row.value, row.value.WhichOneof("value")) for row in thing.attributes}
