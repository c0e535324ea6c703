"""Requests of clients that cannot be installed here, rebuilt from their source.

Each file of ``requests`` names the client, its version and the place in its source, what it
sends, and the fields of the answer that it reads. ``form`` are the parts of a form in their order;
``$PNG`` stands for an image.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from PIL import Image

from service.app import create_app
from service.config.addresses import Origins
from service.config.credentials import Keys
from service.config.table import Config
from tests.support.images import files as images
from tests.support.simulation.fake_engine import FakeEngine

FOLDER = Path(__file__).parent / "requests"
KEY = "0123456789abcdef" * 2
FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}
CASES = [
    pytest.param(each, id=f"{client['client']} {client['version']}: {each['name']}")
    for client in FILES.values()
    for each in client["requests"]
    if each["path"].startswith("/v1/")
]


def found(answer: Any, path: str) -> Any:
    """Return what a client reads, None where there is nothing."""
    for part in path.split("."):
        inner = answer[int(part)] if part.isdigit() else answer.get(part)
        if inner is None:
            return None
        answer = inner
    return answer


def form_of(parts: list[Any]) -> FormData:
    """Return a form with these parts: names with texts, or with files."""
    form = FormData()
    for name, value in parts:
        if isinstance(value, str):
            form.add_field(name, value)
        else:
            form.add_field(
                name, images.png(), filename=value["filename"], content_type=value["type"]
            )
    return form


@pytest.mark.parametrize("case", CASES)
async def test_a_client_finds_what_it_reads(aiohttp_client, case):
    """Status and fields; images are images."""
    config = Config(
        data_dir="",
        api_keys=Keys(f"anna:{KEY}") if "Authorization" in case["headers"] else Keys(),
        cors_origins=Origins("https://lite.koboldai.net"),
    )
    client = await aiohttp_client(create_app(config, FakeEngine()))
    headers = {name: value.replace("KEY", KEY) for name, value in case["headers"].items()}
    data: Any = None if case["body"] is None else json.dumps(case["body"])
    if "form" in case:
        data = form_of(case["form"])
    async with client.request(case["method"], case["path"], data=data, headers=headers) as answer:
        assert answer.status == case["status"]
        text = await answer.text()
        if "Origin" in headers:
            assert answer.headers["Access-Control-Allow-Origin"] == headers["Origin"]
        if (asked := headers.get("Access-Control-Request-Headers")) is not None:
            allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {*asked.split(",")} <= {*allowed}
    read = {path: found(json.loads(text), path) for path in case["reads"]}
    assert all(read.values())
    for path, value in read.items():
        if path.endswith("b64_json"):
            assert Image.open(io.BytesIO(base64.b64decode(value))).format == "PNG"
    assert not [path for path in case["lacks"] if found(json.loads(text), path) is not None]


def test_every_file_says_where_it_comes_from():
    """Client, version and place in the source."""
    assert FILES
    for client in FILES.values():
        assert all(client[name] for name in ("client", "version", "source", "requests"))
