"""Table client x call: the package webuiapi, as its users call it."""

import asyncio
import json
from typing import Any

from aiohttp.test_utils import TestServer

from service.app import create_app
from service.config.credentials import Keys
from service.config.table import Config
from service.http.state import METRICS
from tests.support import client_packages
from tests.support.samples import sample
from tests.support.simulation.fake_engine import FakeEngine

KEY = "0123456789abcdef" * 2
SECONDS = 120
MADE = 10
"""Calls of txt2img and img2img that succeed."""

CALLS: dict[str, Any] = {
    "lists": {
        "samplers": 18,
        "schedulers": 8,
        "sd_vae": 0,
        "upscalers": 2,
        "latent_upscale_modes": 1,
        "loras": 1,
        "sd_models": 1,
        "hypernetworks": 0,
        "face_restorers": 0,
        "realesrgan_models": 0,
        "prompt_styles": 0,
    },
    "options": "png",
    "set options": None,
    "options are kept": 2,
    "flags": {},
    "scripts": {"txt2img": [], "img2img": []},
    "embeddings": ["loaded", "skipped"],
    "memory": ["cuda", "ram"],
    "progress": 0,
    "refresh": None,
    "interrupt": {},
    "skip": None,
    "two images": [[256, 256], [256, 256]],
    "seeds": [5, 6],
    "sampler": "Euler a",
    "clip skip of the options": 2,
    "a sampler and a scheduler": {"Schedule type": "Karras"},
    "ControlNet": ["alwayson_scripts: there is no ControlNet."],
    "its own words": True,
    "hires fix": [
        [512, 512],
        {"Hires upscale": 2.0, "Hires upscaler": "Latent"},
    ],
    "hires fix in pixels": [[384, 320], 0.5],
    "hires fix by a model": [
        [384, 384],
        [
            "hr_upscaler: there is no 'R-ESRGAN 4x+'; Lanczos is used.",
            "alwayson_scripts: there is no ControlNet.",
        ],
    ],
    "img2img": [[256, 256], 0.5, []],
    "inpaint": [[256, 256], True],
    "variations": [[5, 5], [9, 10]],
    "extra-single-image": [
        [384, 384],
        "<p>Postprocess upscale by: 1.5, Postprocess upscaler: Lanczos</p>",
    ],
    "extra-batch-images": [
        *([128, 128], [128, 128]),
        "<p>Postprocess upscale by: 0.5, Postprocess upscaler: Lanczos</p>",
    ],
    "an upscaler that is not here": [400, "upscaler_1: must be one of None, Lanczos"],
    "no sampler": [404, "Sampler not found"],
    "too many": [400, "batch_size x n_iter: must be a whole num"],
    "a wrong key": [401, "Incorrect username or password"],
    "no image": [400, "init_images: must be a list of one image"],
    "model": "demo",
}
"""What each call gives."""

pytestmark = client_packages.needed


async def test_the_package_works_with_the_service() -> None:
    """Every call that has a meaning here, with a key as the password."""
    app = create_app(Config(data_dir="", api_keys=Keys(f"anna:{KEY}")), FakeEngine())
    async with TestServer(app, host="127.0.0.1") as server:
        program = await asyncio.create_subprocess_exec(
            str(client_packages.FOLDER / "bin" / "python"),
            str(client_packages.SCRIPTS / "webuiapi_calls.py"),
            *(str(server.host), str(server.port), KEY),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SECONDS):
            said, errors = await program.communicate()
        assert program.returncode == 0, errors.decode()
        found = json.loads(said)
        assert found == CALLS
        labels = {"api": "sdapi", "outcome": "succeeded", "code": ""}
        assert sample(app[METRICS], "sd_jobs_total", **labels) == MADE
