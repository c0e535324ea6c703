"""What ``POST /jobs`` takes: a generation, and what shall become of it.

``POST /generate`` takes it, too, from a client that does not wait for the pictures.
"""

import math
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from marshmallow import Schema, post_load

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.http.accept import answered_at_once
from service.http.fields import RealNumber, Text
from service.http.schemas import GenerationSchema, generation_schema
from service.jobs.targets import LONGEST_URL


@dataclass(frozen=True, kw_only=True)
class Order:
    """A generation that its client fetches later."""

    generation: GenerationRequest
    timeout_seconds: float = math.inf
    webhook: str = ""


class OrderSchema(GenerationSchema):
    """An object that describes a job."""

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> Order:
        beside = {name: data.pop(name) for name in ("timeout_seconds", "webhook")}
        return Order(generation=GenerationRequest(**data), **beside)


class GenerateSchema(GenerationSchema):
    """An object that describes a generation; an order of the client that does not wait."""

    order: Schema

    def of(self, request: web.Request) -> Schema:
        """Return what the body of a request is read with."""
        return self.order if answered_at_once(request) else self

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> Order:
        return Order(generation=GenerationRequest(**data))


def generate_schema(config: Config) -> Schema:
    """Build the schema of ``POST /generate`` with the limits and defaults in the settings."""
    declared = dict(generation_schema(config).fields)
    schema = GenerateSchema.from_dict(dict(declared), name="GenerationRequest")()
    assert isinstance(schema, GenerateSchema)  # noqa: S101 - tells mypy what was derived
    schema.order = order_schema(config)
    return schema


def order_schema(config: Config) -> Schema:
    """Build the schema of ``POST /jobs`` with the limits and defaults in the settings."""
    declared = {
        **generation_schema(config).fields,
        "timeout_seconds": RealNumber(
            low=0.001,
            high=config.request_timeout_seconds,
            example=60,
            load_default=config.request_timeout_seconds,
            metadata={"description": "Seconds after which the job fails if it is not finished."},
        ),
        "webhook": Text(
            high=LONGEST_URL,
            example="https://example.org/pictures",
            load_default="",
            metadata={"description": "Address that is told when the job is over."},
        ),
    }
    return OrderSchema.from_dict(dict(declared), name="JobOrder")()
