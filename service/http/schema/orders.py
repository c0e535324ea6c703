"""What ``POST /jobs`` takes: a generation, and what becomes of it.

``POST /generate`` takes it, too, from a client that does not wait for the images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, ValidationError, post_load, pre_load

from service.core.limits import RequestLimits
from service.core.spec import GenerationSpec
from service.http.accept import answered_at_once
from service.http.schema.fields import RealNumber, Text
from service.http.schema.generation import (
    UNKNOWN,
    GenerationSchema,
    generation_of,
    generation_schema,
    random_in,
)
from service.webhooks.targets import LONGEST_URL

MODELS: Final = 32
"""Models whose schemas are kept."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A generation that its client fetches later."""

    generation: GenerationSpec
    timeout_seconds: float = math.inf
    webhook: str = ""
    random: tuple[str, ...] = ()
    """Seeds that the service chose; it would choose others for the same request."""


class LimitedSchema(GenerationSchema):
    """A schema with the limits and defaults that hold for a model."""

    longest: float
    """Most seconds that a request may take."""
    made_by: Callable[[RequestLimits, float], "LimitedSchema"]
    """Builds one from limits and ``longest``."""

    def within(self, limits: RequestLimits) -> "LimitedSchema":
        """Return the same schema with other limits and defaults."""
        return self.made_by(limits, self.longest)

    def of(self, request: web.Request) -> Schema:
        """Return what the body of a request is read with."""
        del request
        return self


class OrderSchema(LimitedSchema):
    """An object that describes a job."""

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> Order:
        rest = {name: data.pop(name) for name in ("timeout_seconds", "webhook")}
        return Order(generation=generation_of(data), random=random_in(data), **rest)


class GenerateSchema(LimitedSchema):
    """An object that describes a generation; an order of the client that does not wait.

    What only an order takes may be null here, as if it were left out.
    """

    order: Schema

    def of(self, request: web.Request) -> Schema:
        """Return what the body of a request is read with."""
        return self.order if answered_at_once(request) else self

    @pre_load
    def _without_nulls(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        elsewhere = self._elsewhere
        return {k: v for k, v in data.items() if v is not None or k not in elsewhere}

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **kwargs: Any) -> None:
        """Say who takes a field that only an order has."""
        super().handle_error(error, data, many=many, **kwargs)
        for name in self._elsewhere & error.messages_dict.keys():
            error.messages_dict[name] = [
                f"{UNKNOWN}; send it to POST /jobs, or with Prefer: respond-async"
            ]

    @property
    def _elsewhere(self) -> set[str]:
        return self.order.fields.keys() - self.fields.keys()

    @post_load
    def _generation(self, data: dict[str, Any], **_: Any) -> Order:
        return Order(generation=generation_of(data), random=random_in(data))


@lru_cache(maxsize=MODELS)
def generate_schema(limits: RequestLimits, longest: float) -> GenerateSchema:
    """Build the schema of ``POST /generate``; ``longest`` is the most seconds it may take."""
    declared = dict(generation_schema(limits).fields)
    schema = GenerateSchema.from_dict(dict(declared), name="GenerationRequest")()
    assert isinstance(schema, GenerateSchema)  # noqa: S101 - tells mypy what was derived
    schema.longest, schema.made_by = longest, generate_schema
    schema.order = order_schema(limits, longest)
    return schema


@lru_cache(maxsize=MODELS)
def order_schema(limits: RequestLimits, longest: float) -> OrderSchema:
    """Build the schema of ``POST /jobs``; ``longest`` is the most seconds it may take."""
    declared = {
        **generation_schema(limits).fields,
        "timeout_seconds": RealNumber(
            low=0.001,
            high=longest,
            example=60,
            load_default=longest,
            metadata={"description": "Seconds after which the job fails if it is not finished."},
        ),
        "webhook": Text(
            high=LONGEST_URL,
            example="https://example.org/images",
            load_default="",
            metadata={"description": "Address that receives a webhook when the job ends."},
        ),
    }
    schema = OrderSchema.from_dict(dict(declared), name="JobOrder")()
    assert isinstance(schema, OrderSchema)  # noqa: S101 - tells mypy what was derived
    schema.longest, schema.made_by = longest, order_schema
    return schema
