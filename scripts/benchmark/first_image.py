"""Measure the time from a fresh clone, or from a wheel, to the first image.

``python -m scripts.benchmark.first_image clone`` clones this repository into a new folder,
installs it by ``make install``, starts it by ``make serve`` and asks for an image. ``… wheel``
builds a wheel and runs it by ``uvx`` with an empty cache. Downloads count; settings of pip, uv and
make (``TORCH``, ``PIP_FIND_LINKS``, ``UV_FIND_LINKS``) are taken from the environment.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from scripts.written import table

ROOT: Final = Path(__file__).parents[2]
PROMPT: Final = "A cozy cabin in the woods"
PNG: Final = b"\x89PNG"
POLL_SECONDS: Final = 0.1
WAIT_SECONDS: Final = 600.0
NO_MORE: Final[Mapping[str, str]] = {}
OWN: Final = ("VIRTUAL_ENV", "PYTHONPATH")
"""Of the environment that this script runs in, which the others must not see."""


class Watch:
    """Seconds of each part of the way, in order."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part."""
        began = time.monotonic()
        yield
        self.parts.append((name, time.monotonic() - began))

    def report(self) -> str:
        """Return the parts and their sum as a table."""
        total = sum(seconds for _, seconds in self.parts)
        rows = [(name, f"{seconds:.1f}") for name, seconds in [*self.parts, ("in all", total)]]
        return table(("Part", "Seconds"), rows)


def from_clone(folder: Path, watch: Watch) -> None:
    """Clone, install, start and ask, as the README has it."""
    place = folder / "clone"
    with watch.part("git clone"):
        run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(place)], folder)
    with watch.part("make install"):
        run(["make", "--silent", "install"], place)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(place, port) as service:
        with watch.part("make serve, until the model is loaded"):
            until_loaded(port, service)
        with watch.part("POST /generate, 512x512, 20 steps"):
            body = json.dumps({"prompt": PROMPT})
            headers = {"Content-Type": "application/json", "Accept": "image/png"}
            image = asked(port, "POST", "/generate", body, headers)
            demand(image.startswith(PNG), "the answer is no PNG")


@contextmanager
def serving(place: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``make serve``, and end all of it whatever happens."""
    service = subprocess.Popen(
        ["make", "--silent", "serve"],  # noqa: S607 - wherever it is
        cwd=place,
        env={**environment(), "API_PORT": str(port), "LOG_LEVEL": "WARNING"},
        start_new_session=True,
    )
    try:
        yield service
    finally:
        with suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGTERM)
        service.wait(WAIT_SECONDS)


def from_wheel(folder: Path, watch: Watch) -> None:
    """Build a wheel, which does not count, and let uvx make an image with it."""
    place = folder / "clone"
    run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(place)], folder)
    run(["make", "--silent", "wheel"], place)
    (wheel,) = (place / "dist").glob("*.whl")
    uvx = ["uvx", "--quiet", "--constraints", str(place / "constraints.txt")]
    command = [*uvx, "--from", f"{wheel}[engine]", "sd-api"]
    cache = {"UV_CACHE_DIR": str(folder / "cache")}
    with watch.part("uvx sd-api --version, which installs"):
        run([*command, "--version"], folder, **cache)
    with watch.part("uvx sd-api generate, 512x512, 20 steps"):
        run([*command, "generate", PROMPT, "-o", "cabin.png"], folder, **cache)
    demand((folder / "cabin.png").read_bytes()[:4] == PNG, "the file is no PNG")


WAYS: Final[dict[str, Callable[[Path, Watch], None]]] = {
    "clone": from_clone,
    "wheel": from_wheel,
}


def environment() -> dict[str, str]:
    """Return the environment without that of this script."""
    return {name: value for name, value in os.environ.items() if name not in OWN}


def run(command: list[str], folder: Path, **more: str) -> None:
    """Run a program; its output is shown.

    Raises:
        SystemExit: it failed.

    """
    done = subprocess.run(  # noqa: S603 - commands of this file
        command, cwd=folder, env={**environment(), **more}, check=False
    )
    demand(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}")


def until_loaded(port: int, service: subprocess.Popen[bytes]) -> None:
    """Ask for the health until the model is loaded."""
    limit = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < limit:
        demand(service.poll() is None, "the service ended")
        with suppress(OSError):
            if json.loads(asked(port, "GET", "/health"))["model_loaded"]:
                return
        time.sleep(POLL_SECONDS)
    demand(kept=False, otherwise="the model was not loaded in time")


def asked(
    port: int, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = NO_MORE
) -> bytes:
    """Return what the service answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path, body, dict(headers))
        return connection.getresponse().read()
    finally:
        connection.close()


def demand(kept: object, otherwise: str) -> None:
    """End the script where something is not as it must be."""
    if not kept:
        raise SystemExit(f"first_image: {otherwise}")


def main() -> int:
    """Measure one of the ways, and print its parts."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("way", choices=tuple(WAYS))
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Nothing is left behind then, too.
    watch = Watch()
    with tempfile.TemporaryDirectory(prefix="first-image-") as folder:
        WAYS[chosen.way](Path(folder), watch)
    print(watch.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
