"""Forms as the API description has them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from aiohttp import FormData
from openapi_schema_validator import OAS31Validator

from service.http.uploads.multipart import MEDIA_TYPE
from tests.support.images.files import png
from tests.unit.http.schema.test_openapi import description

PNG = png((256, 256))
NATIVE = ("/generate", "/jobs")
OPENAI = ("/v1/images/edits", "/v1/images/variations")
APART = frozenset({"hires"})
"""Fields that cannot go with an image."""

Part = tuple[str, str | bytes]


def content(path: str) -> Any:
    """Return the media types of the body of a route."""
    return description(data_dir="data")["paths"][path]["post"]["requestBody"]["content"]


def form(path: str) -> Any:
    """Return the schema of the form of a route."""
    return content(path)[MEDIA_TYPE]["schema"]


def in_json(path: str) -> Any:
    """Return the schema of the same body in JSON."""
    name = content(path)["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return description(data_dir="data")["components"]["schemas"][name]


def text_of(about: Mapping[str, Any]) -> str:
    """Return a text for the part of a field, by what is said of it."""
    if "contentSchema" not in about:
        value = about.get("default", next(iter(about.get("examples", [1]))))
        return value if isinstance(value, str) else json.dumps(value)
    inside = about["contentSchema"]
    if inside["type"] == "array":
        return "[]"
    return json.dumps({k: v["examples"][0] for k, v in inside.get("properties", {}).items()})


def parts_of(schema: Mapping[str, Any]) -> Iterator[Part]:
    """Yield a part for each field of a form that goes with an image."""
    for name, about in schema["properties"].items():
        if about.get("format") == "binary":
            yield name, PNG
        elif name not in APART:
            yield name, text_of(about)


def sent(parts: Iterable[Part]) -> FormData:
    """Return a form with these parts; bytes are files."""
    found = FormData(default_to_multipart=True)
    for name, value in parts:
        more = {} if isinstance(value, str) else {"filename": f"{name}.png"}
        found.add_field(name, value, **more)
    return found


def test_whatever_takes_a_file_describes_its_form():
    """The native routes and OpenAI's; AUTOMATIC1111's clients send JSON alone."""
    paths = description()["paths"]
    found = {
        path
        for path, operations in paths.items()
        for operation in operations.values()
        if MEDIA_TYPE in operation.get("requestBody", {}).get("content", {})
    }
    assert found == {*NATIVE, *OPENAI}


@pytest.mark.parametrize("path", [*NATIVE, *OPENAI])
def test_a_form_has_the_fields_of_the_body_in_json(path):
    """The same limits and words; there is no null in a form, and an example has no file."""
    ours, theirs = form(path), in_json(path)
    assert [each for each in ours["properties"] if "[]" not in each] == [*theirs["properties"]]
    for name, about in ours["properties"].items():
        assert isinstance(about["type"], str), name
        assert None not in about.get("enum", ())
        assert about["description"]
        for limit in ("minimum", "maximum", "multipleOf", "pattern", "maxLength"):
            same = about.get("format") == "binary" or "contentSchema" in about or "[]" in name
            assert same or about.get(limit) == theirs["properties"][name].get(limit)
    assert not {"image", "mask"} & content(path)[MEDIA_TYPE]["example"].keys()


@pytest.mark.parametrize(("path", "status"), [("/generate", 200), ("/jobs", 202)])
async def test_a_form_with_every_field_as_described_is_taken(serve, tmp_path, path, status):
    """Files, numbers and texts, and JSON for what is nested."""
    client = await serve(data_dir=str(tmp_path))
    parts = list(parts_of(form(path)))
    assert {"image", "mask", "pad", "adapters", "steps"} < {name for name, _ in parts}
    async with client.post(path, data=sent(parts)) as answer:
        assert answer.status == status, await answer.text()


@pytest.mark.parametrize("path", OPENAI)
@pytest.mark.parametrize("names", [["image"], ["image[]"], ["image[]", "image[]"]])
async def test_an_image_may_be_one_of_several(client, path, names):
    """By either name, of which the description asks for one."""
    schema = form(path)
    texts = {"prompt": "a boat", "steps": 2, "adapters": "[]", "size": "256x256"}
    files = {"image": "a file"} if names == ["image"] else {"image[]": ["a file"] * len(names)}
    check = OAS31Validator(schema)
    check.validate({**texts, **files})
    assert not check.is_valid(texts)
    written: list[Part] = [(name, str(value)) for name, value in texts.items()]
    images: list[Part] = [(name, PNG) for name in names]
    async with client.post(path, data=sent(images + written)) as answer:
        assert answer.status == 200, await answer.text()
        assert bool((await answer.json())["warnings"]) is (len(names) > 1)
    async with client.post(path, data=sent(written)) as answer:
        assert answer.status == 400


def test_what_is_nested_is_json_in_a_text():
    """With the schema that the same field has in JSON."""
    for name in ("adapters", "pad", "hires"):
        about = form("/generate")["properties"][name]
        theirs = in_json("/generate")["properties"][name]
        assert (about["type"], about["contentMediaType"]) == ("string", "application/json")
        assert about["contentSchema"].get("properties") == theirs.get("properties")
        assert about["contentSchema"].get("items") == theirs.get("items")
    # A name, or objects: each is a text.
    assert form("/v1/images/edits")["properties"]["lora"]["type"] == "string"
