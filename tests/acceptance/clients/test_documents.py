"""docs/CLIENTS.md: its examples run with the packages that they name, and its addresses exist."""

import os
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import requests

from tests.disasters.conftest import light_service
from tests.support.client_packages import FOLDER, needed
from tests.support.documents import ROOT, Block, blocks

DOCUMENT = ROOT / "docs" / "CLIENTS.md"
PACKAGED = [block for block in blocks(DOCUMENT) if block.needs.startswith("the package ")]
PATIENCE_SECONDS = 120
PLACES = {
    "/v1": "/v1/images/generations",
    "/v1/images/generations": "/v1/images/generations",
    "": "/sdapi/v1/txt2img",
    "/sdapi/v1/txt2img": "/sdapi/v1/txt2img",
}
"""Addresses that a client is given, and the route that it asks below them."""


@pytest.fixture(scope="module")
def live():
    """Start a service whose engine needs no torch."""
    with light_service() as started:
        yield started


@needed
@pytest.mark.parametrize("block", PACKAGED, ids=str)
def test_examples_run_with_the_packages_of_clients(block: Block, live, tmp_path):
    """As they stand, but for the address; each leaves an image, or checks its answer itself."""
    port = live.url.rpartition(":")[2]
    text = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    text = text.replace("port=8000", f"port={port}")
    if block.language == "js":
        (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
        (tmp_path / "shown.mjs").write_text(text, encoding="utf-8")
        command = [shutil.which("node") or "node", "shown.mjs"]
    else:
        command = [str(FOLDER / "bin" / "python"), "-c", text]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = sorted(path.name for path in tmp_path.glob("*.png"))
    assert written or "assert" in block.text
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in written)
    if "partial_images" in block.text:
        assert "lighthouse-done.png" in written


def test_every_client_that_is_named_has_its_section():
    """The table leads to each."""
    text = DOCUMENT.read_text(encoding="utf-8")
    headings = {line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")}
    assert {
        *("openai", "litellm", "webuiapi", "Open WebUI", "LibreChat", "SillyTavern"),
        *(
            "KoboldAI Lite",
            "aiyabot",
            "AI-Render",
            "cyanic-sd-krita",
            "Shell",
            "Python",
            "JavaScript",
        ),
    } <= headings


def test_every_address_leads_to_a_route(live):
    """What a user pastes into a client is the root of an API, or the route itself."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = set(re.findall(r"http://127\.0\.0\.1:8000[\w/]*", text))
    paths = {urlsplit(address).path.rstrip("/") for address in found} - {"/generate"}
    assert paths == PLACES.keys()
    for route in PLACES.values():
        # Nothing is wrong with the address; what is missing is the prompt.
        assert requests.post(f"{live.url}{route}", json={}, timeout=20).status_code in {400, 422}
