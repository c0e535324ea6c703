"""One measurement in a process of its own, watched from outside."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from scripts.cards.order import Measured, Order, measured_from, to_json
from scripts.cards.watch import watching
from service.config import Config
from service.setting import environment_name

ROOT: Final = Path(__file__).parents[2]
KEPT: Final = frozenset({"CUDA_VISIBLE_DEVICES", "MODEL_CACHE_DIR", "TORCH_THREADS"})
"""Settings of the caller's that count here, too: which card, where the models are, which cores."""

POLL_SECONDS: Final = 0.02
LIMIT_SECONDS: Final = 900.0
"""An offloaded SDXL picture on an old card takes minutes; beyond this something hangs."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what a measuring process is given: no setting of the service but these and KEPT."""
    rows = {environment_name(row) for row in fields(Config)} - KEPT
    kept = {name: value for name, value in os.environ.items() if name not in rows}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        # Before anything looks for GPUs; the order is the driver's, as the engine has it.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "LOG_LEVEL": "ERROR",
        "LOG_FORMAT": "console",
        "DATA_DIR": "",
        **settings,
    }


def run(
    order: Order, settings: Mapping[str, str], *, limit_seconds: float = LIMIT_SECONDS
) -> Measured:
    """Carry an order out and return what was measured; its failure is a result, too."""
    given = environment(settings)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as answer,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        watching(given.get("CUDA_VISIBLE_DEVICES", "0")) as watch,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.cards.work"],
            env=given,
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=said,
            text=True,
        )
        try:
            _tell(process, order)
            ends = time.monotonic() + limit_seconds
            while process.poll() is None and time.monotonic() < ends:
                watch.look(process.pid)
                time.sleep(POLL_SECONDS)
            late = process.poll() is None
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if late:
            return Measured(failure=f"no end within {limit_seconds:g} s")
        answer.seek(0)
        if process.returncode or not (line := answer.read()):
            said.seek(0)
            words = said.read()
            print(words, file=sys.stderr)  # All of it goes to a log, its end into the result.
            return Measured(failure=_last_words(process.returncode, words))
        return replace(measured_from(line), process=watch.most, process_by=watch.by)


def _tell(process: "subprocess.Popen[str]", order: Order) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        process.stdin.write(to_json(order))
        process.stdin.close()
    except BrokenPipeError:  # It has ended already; its last words say why.
        pass


def _last_words(code: int, said: str) -> str:
    if code < 0:
        return f"ended by signal {-code}, which for 9 is mostly the kernel's, out of host memory"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1] if lines else 'without a word'}"
