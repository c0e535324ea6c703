"""A machine that fetches, checks and removes models: the real command."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
DEMO = ROOT / "service" / "demo"
INDEX = "model_index.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
WAIT_SECONDS = 120.0


class Machine:
    """A folder for models, and the hub that it asks."""

    def __init__(self, folder: Path, url: str) -> None:
        self.cache = folder / "its models"
        self.environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "MODEL_CACHE_DIR": str(self.cache),
            "CUDA_VISIBLE_DEVICES": "",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "models", *words],
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def models(self, *words: str, **settings: str) -> tuple[int, str, str]:
        process = self.start(*words, **settings)
        out, told = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in told
        return process.returncode, out, told

    def typed(self, told: str) -> tuple[int, str]:
        """Run the command that a line ends with, from another folder and with no settings."""
        (command,) = re.findall(r": ([^:]*sd-api models .*|[^:]* -m service models .*)", told)
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            env={k: v for k, v in self.environment.items() if k != "MODEL_CACHE_DIR"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stdout

    def file(self, name: str) -> Path:
        return next(self.cache.glob(f"models--org--name/snapshots/*/{name}"))
