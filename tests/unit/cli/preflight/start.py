"""A start of the real service on a machine of paper, and what it says when it ends."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.nvml.driver import Driver

ROOT = Path(__file__).parents[4]
DEMO = ROOT / "service" / "demo"
WAIT_SECONDS = 60.0
SETTINGS = {"API_PORT": "0", "LOG_FORMAT": "json", "HF_HUB_OFFLINE": "1", "DATA_DIR": ""}


class Start:
    """A start of the real service with a GPU, a driver and a torch of paper."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.card = Driver(folder, library, name="GTX 1060", cuda=13000)
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []
        self.torch(cuda="12.6", version="2.13.0+cu126")

    def torch(self, *, cuda: str | None, version: str) -> None:
        """Put a torch before the installed one, of which only the version can be read."""
        package = self.folder / "packages" / "torch"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("raise AssertionError('torch was imported')\n")
        (package / "version.py").write_text(
            f"__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\n"
            "hip: Optional[str] = None\n"
        )

    def run(self, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        environment = {
            **os.environ,
            **SETTINGS,
            **self.card.environment,
            "PYTHONPATH": os.pathsep.join((str(self.folder / "packages"), str(ROOT))),
            **{name: str(value) for name, value in settings.items()},
        }
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "service", *words],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )


def told(run: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and the one line that is no log line."""
    lines = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert "Traceback" not in run.stderr
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("sd-api: ")
    return run.returncode, lines[0]


def log(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]


def giant(folder: Path) -> Path:
    """Make a model whose UNet has 4 billion weights; its file is a hole of that length."""
    shutil.copytree(DEMO, folder)
    numbers = 4 * 10**9
    config = json.loads((folder / "unet" / "config.json").read_text())
    shape = [config["block_out_channels"][0], config["in_channels"], 3, 3]
    first = 2 * math.prod(shape)
    ends = first + 2 * numbers
    head = json.dumps(
        {
            "conv_in.weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, first]},
            "w": {"dtype": "F16", "shape": [numbers], "data_offsets": [first, ends]},
        }
    ).encode()
    with (folder / "unet" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + ends)
    return folder
