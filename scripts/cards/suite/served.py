"""The real service on this machine: its health and its GPU metrics before, while and after work."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from tempfile import TemporaryDirectory
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from scripts.cards.child import environment
from scripts.cards.suite.parts import Report, Task, Tell
from scripts.drill.wait import free_port
from service.telemetry.definitions import GPU

FIELDS: Final = ("status", "gpu_available", "gpu_memory_used", "gpu_memory_total", "model_loaded")
BODY: Final = {
    "gpu": {"width": 768, "height": 768, "steps": 50},
    "cpu": {"width": 256, "height": 256, "steps": 4},
}
BUSY_SECONDS: Final = {"gpu": 8.0, "cpu": 0.0}
"""Drawing lasts at least so long: the service reads the GPU every 5 s."""

END_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.25
ANSWER_SECONDS: Final = 60.0
FEW: Final = 4
"""Series of a metric that are shown one by one; of more, only their number and sum."""

HEAD: Final = ("figure", "before", "while drawing", "after")
Figures = Mapping[str, str]


def run(task: Task, tell: Tell) -> None:
    """Start the service, draw, read what it says, and end it."""
    kind = "cpu" if task.on_cpu else "gpu"
    ends = time.monotonic() + task.seconds
    report = Report()
    with TemporaryDirectory(prefix="card-data-") as data, served(task, data) as (process, url):
        started = time.monotonic()
        await_ready(process, url, ends)
        report.notes.append(f"Ready after {time.monotonic() - started:.1f} s.")
        seen = [figures(url)]
        images: list[str] = []
        failures: list[str] = []
        until = time.monotonic() + BUSY_SECONDS[kind]

        def work() -> None:
            try:
                while not images or time.monotonic() < until:
                    images.append(draw(url, {**BODY[kind], "prompt": "a boat", "seed": 1}))
            except (OSError, ValueError, HTTPException) as error:
                failures.append(f"no image: {error}")

        drawing = threading.Thread(target=work, daemon=True)
        drawing.start()
        while drawing.is_alive() and time.monotonic() < ends:
            seen.append(figures(url))
            drawing.join(POLL_SECONDS)
        seen.append(figures(url))
        report.table = table(seen[0], seen[-2], seen[-1])
        report.figures = {"before": seen[0], "drawing": seen[-2], "after": seen[-1]}
        report.notes.append(f"Images drawn: {len(images)}.")
        report.notes += absent(seen[-1])
        report.fail("; ".join(failures))
        report.fail(blind(seen[-2]) if not task.on_cpu else "")
        tell(report)
        report.notes.append(ended(process))
        report.fail("" if process.returncode == 0 else f"exit code {process.returncode}")
    tell(report)


@contextmanager
def served(task: Task, data: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run the service on a free port of the loopback address; what it logs goes to our log."""
    port = free_port()
    where = {"DATA_DIR": data, "API_HOST": "127.0.0.1", "API_PORT": str(port)}
    given = environment(task.settings(**where, LOG_LEVEL="INFO", LOG_FORMAT="json"))
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], env=given, stdin=subprocess.DEVNULL
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def get(url: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    """Return status and body of an answer; no proxy of the environment is asked."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(asked, timeout=ANSWER_SECONDS) as answer:
        return answer.status, answer.read()


def await_ready(process: "subprocess.Popen[bytes]", url: str, ends: float) -> None:
    """Wait until the service draws.

    Raises:
        RuntimeError: it has ended, or is not ready in time.

    """
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}; see the log")
        try:
            if get(f"{url}/health/ready")[0] == HTTPStatus.OK:
                return
        except (OSError, HTTPException):
            time.sleep(POLL_SECONDS)
    raise RuntimeError("the service was not ready in time; see the log")


def draw(url: str, body: Mapping[str, Any]) -> str:
    """Ask for an image; return it as base64."""
    _, answer = get(f"{url}/generate", body)
    return str(json.loads(answer)["image_base64"])


def figures(url: str) -> dict[str, str]:
    """Return the fields of the health answer and the series of the GPU, by name."""
    health = json.loads(get(f"{url}/health")[1])
    found = {f"health: {name}": str(health[name]) for name in FIELDS}
    for family in text_string_to_metric_families(get(f"{url}/metrics")[1].decode()):
        if not family.name.startswith(("sd_gpu_", "sd_engine_gpu_")):
            continue
        if len(family.samples) > FEW:
            total = sum(sample.value for sample in family.samples)
            found[family.samples[0].name] = f"{len(family.samples)} series, sum {total:g}"
            continue
        for sample in family.samples:
            labels = ", ".join(value for name, value in sample.labels.items() if name != "gpu")
            found[f"{sample.name} ({labels})" if labels else sample.name] = f"{sample.value:g}"
    return found


def table(*seen: Figures) -> list[Sequence[str]]:
    """Return the figures at three times, one a row."""
    names = dict.fromkeys(name for each in seen for name in each)
    return [HEAD, *((name, *(each.get(name, "-") for each in seen)) for name in names)]


def absent(seen: Figures) -> list[str]:
    """Return a note of the metrics of a GPU that this one does not give."""
    there = {name.partition(" ")[0] for name in seen}
    missing = [row.name for row in GPU if row.name not in there]
    return [f"Metrics that are not there: {', '.join(missing)}."] if missing else []


def blind(seen: Figures) -> str:
    """Return what a service on a GPU must show and does not; empty if it does."""
    wrong = [
        *(["gpu_available is not true"] if seen["health: gpu_available"] != "True" else []),
        *(f"{name} is 0.0 GB" for name in FIELDS[2:4] if seen[f"health: {name}"] == "0.0 GB"),
        *(["no sd_gpu_memory_used_bytes"] if "sd_gpu_memory_used_bytes" not in seen else []),
    ]
    return "; ".join(wrong)


def ended(process: "subprocess.Popen[bytes]") -> str:
    """End the service by SIGTERM; return how it ended."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    seconds = time.monotonic() - started
    return f"After SIGTERM it ended with exit code {process.returncode} in {seconds:.1f} s."
