"""Requests of clients of AUTOMATIC1111's API, rebuilt from their source.

The files are those of ``test_openai_requests``. The requests of a file are sent one after the
other. In a body, ``$2:0.title`` stands for what the answer to the file's third request has there,
``$PNG`` and ``$MASK`` for an image and a mask in base64.
"""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

from service.app import create_app
from service.config.addresses import Origins
from service.config.credentials import Keys
from service.config.table import Config
from tests.support.images import files as images
from tests.support.simulation.fake_engine import FakeEngine

FOLDER = Path(__file__).parent / "requests"
KEY = "0123456789abcdef" * 2
FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CLIENTS = {
    name: client
    for name, client in FILES.items()
    if any(each["path"].startswith("/sdapi/") for each in client["requests"])
}
EARLIER = re.compile(r"\$(\d+):(\S+)")
NOTHING = object()
IMAGES = {"$PNG": images.base64_of(images.png()), "$MASK": images.base64_of(images.mask())}


def found(answer: Any, path: str) -> Any:
    """Return what a client reads; ``info`` is JSON inside JSON."""
    for part in filter(None, path.split(".")):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else NOTHING
        else:
            answer = answer.get(part, NOTHING) if isinstance(answer, dict) else NOTHING
        if part == "info" and isinstance(answer, str) and answer.startswith("{"):
            answer = json.loads(answer)
    return answer


def filled(value: Any, answers: list[Any]) -> Any:
    """Return a body with what earlier answers have."""
    if isinstance(value, str):
        for name, image in IMAGES.items():
            value = value.replace(name, image)
        return EARLIER.sub(lambda match: str(found(answers[int(match[1])], match[2])), value)
    if isinstance(value, list):
        return [filled(each, answers) for each in value]
    if not isinstance(value, dict):
        return value
    if "$merge" in value:
        number, more = value["$merge"]
        return answers[number] | filled(more, answers)
    return {name: filled(each, answers) for name, each in value.items()}


def headers_of(case: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a request, with the key in the password."""
    pair = base64.b64encode(f"user:{KEY}".encode()).decode()
    return {name: value.replace("KEY", pair) for name, value in case["headers"].items()}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_finds_what_it_reads(aiohttp_client, name):
    """Status, fields and images, from its first question to its last."""
    requests = CLIENTS[name]["requests"]
    keyed = any("KEY" in each["headers"].get("Authorization", "") for each in requests)
    config = Config(
        data_dir="",
        api_keys=Keys(f"anna:{KEY}") if keyed else Keys(),
        cors_origins=Origins("https://lite.koboldai.net"),
    )
    client = await aiohttp_client(create_app(config, FakeEngine()))
    answers: list[Any] = []
    for case in requests:
        body = case["body"]
        data = None if body is None else json.dumps(filled(body, answers))
        method, path = case["method"], case["path"]
        with capture_logs() as logs:
            async with client.request(method, path, data=data, headers=headers_of(case)) as answer:
                text = await answer.text()
        assert answer.status == case["status"], (case["name"], text)
        if origin := case["headers"].get("Origin"):
            assert answer.headers["Access-Control-Allow-Origin"] == origin
        is_json = answer.content_type == "application/json"
        answers.append(json.loads(text) if is_json and text else None)
        check(case, answers[-1])
        for secret in case.get("silent", ()):
            assert secret not in text
            assert secret not in repr(logs)


def check(case: dict[str, Any], answer: Any) -> None:
    """Compare an answer with what the client reads in it."""
    for path in case["reads"]:
        assert found(answer, path) not in (NOTHING, None), (case["name"], path)
        if path.startswith("image"):
            image = Image.open(io.BytesIO(base64.b64decode(found(answer, path), validate=True)))
            assert image.format == "PNG"
    for path, value in case.get("equals", {}).items():
        assert found(answer, path) == value, (case["name"], path)
    for path in case["lacks"]:
        assert found(answer, path) is NOTHING, (case["name"], path)


def test_these_are_the_clients():
    """Each file says where it comes from."""
    named = {client["client"] for client in CLIENTS.values()}
    assert named == {
        *("Open WebUI", "SillyTavern", "LibreChat", "KoboldAI Lite", "AI-Render", "aiyabot"),
        *("cyanic-sd-krita", "text-generation-webui"),
    }
    for client in CLIENTS.values():
        assert all(client[name] for name in ("client", "version", "source", "requests"))
