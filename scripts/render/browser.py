"""An image of a page, taken by headless Chromium."""

import html as markup
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_SECONDS: Final = 300.0
DRAWN_WITHIN: Final = 60.0
"""Seconds that the page has, as its own clock runs: Chromium skips those without work."""


class CannotRender(Exception):
    """What draws is missing or failed; the text says what, and the cure where there is one."""


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """A page as it was drawn."""

    png: bytes
    notes: tuple[str, ...]
    """What a reader of the image cannot see whole, and errors of the page's program."""
    undrawn: tuple[tuple[str, str], ...]
    """Panels on which the page's program failed, and how."""


def require() -> str:
    """Make sure that the programs are there; return the path of Chromium.

    Raises:
        CannotRender: one is missing; the text says how to get it.

    """
    cures = {
        "node": (("node",), "Node.js 20 or later (Debian: apt-get install nodejs)"),
        "npm": (("npm",), "npm (Debian: apt-get install npm)"),
        "chromium": (CHROMIUMS, "it (Debian: apt-get install chromium)"),
    }
    path = ""
    for program, (names, cure) in cures.items():
        path = next(filter(None, map(shutil.which, names)), "")
        if not path:
            raise CannotRender(f"{program} is missing: install {cure}")
    return path


def draw(chromium: str, html: str, width: int, height: int) -> RawImage:
    """Draw a page that is at most ``height`` pixels long.

    Raises:
        CannotRender: Chromium or the page's program failed.

    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page, png = Path(folder, "page.html"), Path(folder, "page.png")
        page.write_text(html, encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - Chromium, on a page of our own
            [
                chromium,
                "--headless=new",
                f"--user-data-dir={folder}/profile",
                f"--window-size={width},{height}",
                f"--virtual-time-budget={round(1000 * DRAWN_WITHIN)}",
                f"--screenshot={png}",
                "--dump-dom",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--force-color-profile=srgb",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),  # As root it has no other way.
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
        if done.returncode or not png.exists():
            raise CannotRender(f"Chromium ended by itself: {done.stderr.strip()[-500:]}")
        found = re.search(r'<pre id="result" hidden="">(.*?)</pre>', done.stdout, re.DOTALL)
        result: dict[str, Any] = {"errors": ["it took too long"]}
        if found and found[1]:
            result = json.loads(markup.unescape(found[1]))
        if "undrawn" not in result:
            raise CannotRender(f"the page was not drawn: {'; '.join(result['errors'])}")
        with Image.open(png) as drawn:
            drawn.crop((0, 0, width, result["height"])).save(png)
        return RawImage(
            png=png.read_bytes(),
            notes=(*result["notes"], *result["errors"]),
            undrawn=tuple((panel, text) for panel, text in result["undrawn"]),
        )
