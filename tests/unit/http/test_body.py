"""Bodies that are wrong before any field is looked at."""

import gzip
import json
from typing import Any

import pytest

JSON = {"Content-Type": "application/json"}


async def post(client, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with client.post("/generate", data=body, headers=headers or JSON) as answer:
        assert answer.content_type == "application/problem+json"
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"prompt": "a boat",}', "line 1"),
        (b'{"prompt": "\xff"}', "byte 12 is no UTF-8"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 60_000, "nested too deeply"),
    ],
)
async def test_a_body_that_is_no_json_is_a_validation_error(client, body, reason):
    """Malformed JSON is answered with 400 and the place of the mistake."""
    status, problem = await post(client, body)
    assert (status, list(problem["errors"])) == (400, ["body"])
    assert reason in problem["errors"]["body"][0]


async def test_two_hundred_thousand_brackets_do_no_harm(serve):
    """Nesting beyond the recursion limit is a validation error, not a crash."""
    client = await serve(max_body_bytes=1_000_000)
    status, problem = await post(client, b"[" * 200_000)
    assert (status, problem["code"]) == (400, "validation_error")


@pytest.mark.parametrize("body", [b"[]", b'"prompt"', b"1", b"null", b"true", b'[{"prompt":"x"}]'])
async def test_a_body_that_is_no_object_is_a_validation_error(client, body):
    """Only a JSON object has fields."""
    status, problem = await post(client, body)
    expected = {"body": ['must be a JSON object, e.g. {"prompt": "a boat"}']}
    assert (400, expected) == (status, problem["errors"])


async def test_a_field_that_is_given_twice_is_named(client):
    """Parsers differ in which one they take, so neither is taken."""
    status, problem = await post(client, b'{"prompt": "a boat", "seed": 1, "seed": 2}')
    assert (status, problem["errors"]) == (400, {"seed": ["is given more than once; keep one"]})


async def test_what_only_a_job_has_may_be_null_for_generate(client):
    """Left out, as for every optional field; a value is refused with the place to send it to."""
    body = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
    empty = dict.fromkeys(("webhook", "timeout_seconds"))
    async with client.post("/generate", json=body | empty) as answer:
        assert answer.status == 200
    for wrong in ({"webhook": ""}, {"timeout_seconds": 5}):
        status, problem = await post(client, json.dumps(body | empty | wrong).encode())
        said = (
            "is not a field of this request; send it to POST /jobs, or with Prefer: respond-async"
        )
        assert (status, problem["errors"]) == (400, {name: [said] for name in wrong})
    status, problem = await post(client, json.dumps(body | {"zzz": None}).encode())
    assert (status, problem["errors"]) == (400, {"zzz": ["is not a field of this request"]})


async def test_numbers_that_json_does_not_have_are_named_by_field(client):
    """NaN and Infinity pass many parsers; here they are wrong values."""
    body = b'{"prompt": "a boat", "steps": NaN, "guidance_scale": Infinity, "seed": -Infinity}'
    status, problem = await post(client, body)
    assert (400, {"steps", "guidance_scale", "seed"}) == (status, set(problem["errors"]))


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "image/png", "json", "text/json"],
)
async def test_another_content_type_is_not_read(client, content_type):
    """What is not declared to be JSON is answered with 415, whatever it holds."""
    headers = {"Content-Type": content_type} if content_type else {}
    async with client.post(
        "/generate",
        data=b'{"prompt": "a boat"}',
        headers=headers,
        skip_auto_headers=["Content-Type"],
    ) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (415, "unsupported_media_type")
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=UTF-8", "application/json;charset=utf8", "application/ld+json"],
)
async def test_the_ways_to_say_json_in_utf_8_are_taken(client, content_type):
    """Names of UTF-8 and kinds of JSON are equal."""
    body = json.dumps({"prompt": "a boat", "width": 256, "height": 256, "steps": 1}).encode()
    async with client.post(
        "/generate", data=body, headers={"Content-Type": content_type}
    ) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("charset", ["bogus", "utf-16", "latin-1", "rot13"])
async def test_another_charset_is_a_validation_error(client, charset):
    """JSON is UTF-8 (RFC 8259, 8.1)."""
    headers = {"Content-Type": f"application/json; charset={charset}"}
    status, problem = await post(client, b'{"prompt": "a boat"}', headers)
    assert (
        status,
        problem["errors"],
    ) == (400, {"body": ["must be JSON in UTF-8; leave the charset out"]})


async def test_a_body_with_a_byte_order_mark_is_read(client):
    """Some tools on Windows write one."""
    body = b"\xef\xbb\xbf" + b'{"prompt": "a boat", "width": 256, "height": 256, "steps": 1}'
    async with client.post("/generate", data=body, headers=JSON) as answer:
        assert answer.status == 200


async def test_a_body_above_the_limit_is_not_read_to_its_end(serve):
    """413, with the limit and its setting."""
    client = await serve(max_body_bytes=1100, max_prompt_chars=3)
    status, problem = await post(client, json.dumps({"prompt": "x" * 2000}).encode())
    assert (status, problem["code"]) == (413, "body_too_large")
    assert "1100 bytes (MAX_BODY_BYTES)" in problem["detail"]


async def test_a_body_in_chunks_has_the_same_limit(serve):
    """Nobody needs to announce a length to be refused."""
    client = await serve(max_body_bytes=1100, max_prompt_chars=3)

    async def chunks():
        for _ in range(8):
            yield b" " * 500

    async with client.post("/generate", data=chunks(), headers=JSON) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (413, "body_too_large")


async def test_a_compressed_body_has_the_same_limit_after_unpacking(serve):
    """A small file that unpacks to a large one is still too large."""
    client = await serve(max_body_bytes=1100, max_prompt_chars=3)
    body = gzip.compress(b" " * 100_000)
    status, problem = await post(client, body, {**JSON, "Content-Encoding": "gzip"})
    assert (status, problem["code"]) == (413, "body_too_large")


async def test_a_body_that_is_not_compressed_as_it_says_is_a_validation_error(client):
    """A wrong Content-Encoding is the client's mistake."""
    status, problem = await post(client, b"not gzip", {**JSON, "Content-Encoding": "gzip"})
    assert (status, problem["code"]) == (400, "validation_error")


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800"])
async def test_characters_that_json_can_write_and_utf_8_cannot_are_refused(client, name, escape):
    """They would break the log or the PNG much later."""
    body = '{"prompt": "a boat", "' + name + '": "x' + escape + '"}'
    if name == "prompt":
        body = '{"prompt": "x' + escape + '"}'
    status, problem = await post(client, body.encode())
    assert (400, [name]) == (status, list(problem["errors"]))


async def test_an_unknown_field_whose_name_is_no_utf_8_is_answered(client):
    """The name comes back escaped."""
    status, problem = await post(client, b'{"prompt": "a boat", "\\ud800": 1}')
    assert (status, list(problem["errors"])) == (400, ["\ud800"])
