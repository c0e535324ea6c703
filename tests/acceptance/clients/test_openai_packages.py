"""Table client x call: the packages openai (Python and Node) and litellm, as users call them."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from service.app import create_app
from service.config.credentials import Keys
from service.config.table import Config
from service.http.state import METRICS
from tests.support import client_packages
from tests.support.simulation.fake_engine import FakeEngine

KEY = "0123456789abcdef" * 2
PYTHON = client_packages.FOLDER / "bin" / "python"
NODE = shutil.which("node")
SECONDS = 120
PARTIAL = "image_generation.partial_image"
COMPLETED = "image_generation.completed"
MORE = "image: only the first is used; this service draws from one image."

CALLS: dict[str, Any] = {
    "only a prompt": ["PNG 512x512"],
    "as for dall-e-3": ["PNG 768x448"] * 2,
    "as for gpt-image-1": ["WEBP 512x512"],
    "more fields": [3, 256, 259, 7],
    "a link": [True, "PNG 256x256"],
    "a stream": [
        [PARTIAL, 0, "PNG 256x256", "256x256"],
        [PARTIAL, 1, "PNG 256x256", "256x256"],
        [COMPLETED, None, "PNG 256x256", "256x256"],
    ],
    "a stream of two": [[COMPLETED, None, "PNG 256x256", "256x256"]] * 2,
    "a deadline in a stream": ["APIError", None, "timeout", None, True],
    "a deadline": ["APIStatusError", 408, "timeout", None, True],
    "a wrong key": ["AuthenticationError", 401, "invalid_api_key", None, True],
    "an unknown model": ["NotFoundError", 404, "model_not_found", "model", True],
    "too many": ["BadRequestError", 400, "validation_error", "n", True],
    "an edit": ["PNG 256x256"],
    "an edit in another size": ["PNG 512x256"],
    "an edit of files": ["PNG 256x256"],
    "an edit of several": ["PNG 256x256", "PNG 256x256", [MORE]],
    "an edit of a transparent image": ["PNG 256x256"],
    "an edit in a stream": [
        ["image_edit.partial_image", 0, "WEBP 256x256", "256x256"],
        ["image_edit.completed", None, "WEBP 256x256", "256x256"],
    ],
    "an opaque mask": ["BadRequestError", 400, "validation_error", "mask", True],
    "no image": ["BadRequestError", 400, "validation_error", "image", True],
    "a variation": ["PNG 256x256"] * 2,
    "models": [["demo", "model", "sd-api"]],
    "a model": "demo",
    "no model": ["NotFoundError", 404, "model_not_found", "model", True],
}
"""What each call gives: images, or the error's class, status, code, param and whether it has an
id."""

NODE_DIFFERS: dict[str, Any] = {
    "as for gpt-image-1": ["WEBP"],
    "an edit in a stream": [
        ["image_edit.partial_image", 0, "WEBP", "256x256"],
        ["image_edit.completed", None, "WEBP", "256x256"],
    ],
    "a deadline": ["APIError", 408, "timeout", None, True],
}
"""The script reads no size of a WebP; npm's package has no class of its own for the status."""

LITELLM: dict[str, Any] = {
    "an image": [True],
    "two": 2,
    "by its name": 1,
    "an unknown model": ["NotFoundError", 404],
    "a wrong key": ["AuthenticationError", 401],
}

pytestmark = client_packages.needed


async def called(folder: Path, *command: object) -> tuple[Any, Any]:
    """Run a client against a service; return what it printed, and the service's metrics."""
    config = Config(data_dir=str(folder), api_keys=Keys(f"anna:{KEY}"))
    app = create_app(config, FakeEngine(step_seconds=0.05))
    async with TestServer(app) as server:
        program, script, *rest = map(str, command)
        url = f"http://127.0.0.1:{server.port}"
        child = await asyncio.create_subprocess_exec(
            program,
            client_packages.SCRIPTS / script,
            url,
            KEY,
            *rest,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SECONDS):
            printed, _ = await child.communicate()
        assert child.returncode == 0
        return json.loads(printed.splitlines()[-1]), app[METRICS].registry.get_sample_value


def late(read: Any) -> float | None:
    """Return how many requests were answered 408."""
    labels = {"api": "openai", "route": "/v1/images/generations", "method": "POST"}
    found: float | None = read("sd_http_requests_total", {**labels, "status": "408"})
    return found


async def test_the_package_for_python_works(tmp_path: Path) -> None:
    """Every call gives what it gives with OpenAI; a deadline is not tried again."""
    found, read = await called(tmp_path, PYTHON, "openai_images.py")
    assert found == CALLS
    assert late(read) == 1


@pytest.mark.skipif(NODE is None, reason="it needs node")
async def test_the_package_for_node_works(tmp_path: Path) -> None:
    """The same calls."""
    modules = client_packages.FOLDER / "node_modules"
    found, read = await called(tmp_path, NODE, "openai_images.mjs", modules)
    assert found == CALLS | NODE_DIFFERS
    assert late(read) == 1


async def test_litellm_works(tmp_path: Path) -> None:
    """As a provider ``openai`` with its own address."""
    found, _ = await called(tmp_path, PYTHON, "litellm_images.py")
    assert found == LITELLM
