"""GET /openapi.json."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from aiohttp import hdrs
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.app import create_app
from service.config.credentials import Keys, Token
from service.config.table import Config
from service.http.schema import openapi
from tests.support.simulation.fake_engine import FakeEngine

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
OPTIONAL = (
    *("negative_prompt", "steps", "width", "height", "seed", "guidance_scale", "sampler"),
    "num_images",
)


def description(**settings) -> Any:
    return json.loads(openapi.current(create_app(Config(**settings), FakeEngine())))


def validator(document: Any, schema: str) -> OAS31Validator:
    return OAS31Validator({**document, "$ref": f"#/components/schemas/{schema}"})


async def test_the_description_is_valid_openapi(client):
    """OpenAPI 3.1, checked by its own validator."""
    async with client.get("/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        document = await answer.json()
    assert document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


async def test_every_route_is_described(client):
    """Only the files that belong to pages are left out."""
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in client.app.router.routes()
        if route.method != hdrs.METH_HEAD
        and not route.resource.canonical.startswith(("/docs/", "/page/"))
    }
    described = {(p, m) for p, operations in description()["paths"].items() for m in operations}
    assert routes == described


def test_two_applications_in_one_process_have_complete_descriptions():
    """Describing one leaves the decorators' notes as they were."""
    first, second = description(), description()
    assert first == second
    assert list(OpenAPIV31SpecValidator(second).iter_errors()) == []


def test_services_that_are_alike_share_a_description_and_others_have_their_own():
    """A start describes nothing that was described before; each setting that counts is heeded."""
    alike = [create_app(Config(), FakeEngine()) for _ in range(2)]
    assert openapi.current(alike[0]) is openapi.current(alike[1])
    apart = (
        {"request_timeout_seconds": 7},
        {"metrics_token": Token("0123456789abcdef0123456789abcdef")},
        {"max_size": 512},
    )
    described = [description(), *(description(**settings) for settings in apart)]
    described.append(description(api_keys=Keys("alice:" + "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405")))
    assert all(one != other for one, other in itertools.combinations(described, 2))


def test_limits_and_defaults_are_those_in_the_settings():
    """What is described is what is checked."""
    properties = description(max_size=1024, default_steps=7)["components"]["schemas"][
        "GenerationRequest"
    ]["properties"]
    assert tuple(
        properties["width"][name] for name in ("minimum", "maximum", "multipleOf", "default")
    ) == (256, 1024, 64, 512)
    assert tuple(properties["steps"][name] for name in ("minimum", "maximum", "default")) == (
        1,
        50,
        7,
    )
    assert (properties["seed"]["minimum"], properties["seed"]["default"]) == (-1, -1)


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"prompt": "a boat"}, True),
        (BODY, True),
        ({"prompt": "a boat", "steps": 20.0, "guidance_scale": 7}, True),
        ({}, False),
        ({"prompt": ""}, False),
        ({"prompt": " "}, False),
        ({"prompt": "x" * 501}, False),
        ({"prompt": "a boat", "width": 500}, False),
        ({"prompt": "a boat", "width": 832}, False),
        ({"prompt": "a boat", "steps": "20"}, False),
        ({"prompt": "a boat", "steps": True}, False),
        ({"prompt": "a boat", **dict.fromkeys(OPTIONAL)}, True),
        ({"prompt": None}, False),
        ({"prompt": "a boat", "seed": -1}, True),
        ({"prompt": "a boat", "seed": -1.0}, True),
        ({"prompt": "a boat", "seed": -2}, False),
        ({"prompt": "a boat", "seed": "-1"}, False),
        ({"prompt": "a boat", "seed": 2**32}, False),
        ({"prompt": "a boat", "guidance_scale": 31}, False),
        ({"prompt": "a boat", "sampler": "magic"}, False),
        ({"prompt": "a boat", "stepz": 1}, False),
    ],
)
async def test_the_description_and_the_service_agree_on_what_is_valid(client, body, valid):
    """A client generated from the description sends what the service takes."""
    assert valid == validator(description(), "GenerationRequest").is_valid(body)
    async with client.post("/generate", json=body) as answer:
        assert (200 if valid else 400) == answer.status


@pytest.mark.parametrize(
    ("method", "path", "schema"),
    [
        ("POST", "/generate", "Generated"),
        ("GET", "/health", "Health"),
        ("GET", "/health/live", "Status"),
        ("GET", "/health/ready", "Status"),
    ],
)
async def test_answers_are_as_described(client, method, path, schema):
    """Real answers pass the schema, and have nothing that it does not name."""
    async with client.request(method, path, json=BODY if method == "POST" else None) as answer:
        body = await answer.json()
    document = description()
    for found in document["components"]["schemas"].values():
        found["additionalProperties"] = False
    validator(document, schema).validate(body)


async def test_the_health_of_a_service_without_a_model_is_as_described(serve):
    """No model yet, and the reason why."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    engine.fail_to_load()
    async with client.get("/health") as answer:
        validator(description(), "Health").validate(await answer.json())


def test_every_error_that_generate_answers_is_described_with_an_example():
    """Status by status, code by code."""
    document = description()
    found = {}
    for status, response in document["paths"]["/generate"]["post"]["responses"].items():
        if status != "200":
            name = response.get("$ref", "").rpartition("/")[2]
            whole = document["components"]["responses"][name] if name else response
            found[int(status)] = set(whole["content"]["application/problem+json"]["examples"])
    expected = {
        400: {
            "validation_error",
            "malformed_request",
        },
        401: {"unauthorized"},
        403: {"forbidden", "cross_origin"},
        404: {"model_not_found", "not_found"},
        406: {"not_acceptable"},
        408: {"timeout"},
        413: {"body_too_large"},
        415: {"unsupported_media_type", "unsupported_encoding"},
        417: {"expectation_failed"},
        409: {"idempotency_conflict", "cancelled"},
        410: {"job_expired"},
        500: {
            *("internal_error", "engine_crashed", "generation_failed", "result_damaged"),
            "input_lost",
        },
        429: {
            "too_many_uploads",
            "rate_limited",
            "quota_exceeded",
            "too_many_failures",
            "too_many_from_address",
        },
        503: {
            "uploads_full",
            "overloaded",
            "queue_full",
            "shutting_down",
            "model_unavailable",
            "engine_unavailable",
            "cluster_unreachable",
            "out_of_memory",
            "too_many_connections",
            "jobs_off",
            "store_unavailable",
            "storage_full",
            "storage_unavailable",
        },
    }
    assert expected == found


def test_every_example_of_an_error_is_an_error():
    """Examples pass the schema they stand beside."""
    document = description()
    check = validator(document, "Problem")
    for response in document["components"]["responses"].values():
        for example in response["content"]["application/problem+json"]["examples"].values():
            check.validate(example["value"])


async def test_the_example_of_a_request_works(client):
    """What the page offers to send is answered with an image."""
    operation = description()["paths"]["/generate"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    async with asyncio.timeout(30), client.post("/generate", json=example) as answer:
        assert answer.status == 200


def test_every_field_is_explained():
    """A reader of the description need not guess what a field means."""
    silent = [
        f"{name}.{field}"
        for name, schema in description(data_dir="data")["components"]["schemas"].items()
        for field, about in schema["properties"].items()
        if not about.get("description")
    ]
    assert silent == []
