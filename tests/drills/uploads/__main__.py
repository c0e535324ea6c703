"""Send large and hostile images to a service, and see what it costs and answers.

Starts a service with a fake engine on the loopback address. Eight clients send it the largest
images that it takes, at the same time, as JSON and as forms, while another asks for /health;
then it gets each file of ``files.hostile`` as an image or as a mask.

    python -m tests.drills.uploads

It prints figures as JSON. Exit code 1: a goal was missed; it is named.
"""

import asyncio
import base64
import io
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import psutil
from PIL import Image

from tests.drills.uploads.files import hostile, saved
from tests.support.service_process import ServiceProcess, running_service

CLIENTS: Final = 8
SIDE: Final = 2360
"""Pixels of noise in a square that as a PNG has nearly 16 MiB."""
MIB: Final = 2**20
HEALTH_P99_MS: Final = 20.0
MOST_MIB: Final = 200.0
"""Above what the service takes before the first image comes, for images of 16 MiB."""
MOST_HOSTILE_MIB: Final = 240.0
"""The same for any file: 17 bytes for each of MAX_IMAGE_PIXELS, and the body and its image."""
EXPECTED: Final = (HTTPStatus.ACCEPTED, HTTPStatus.BAD_REQUEST)
REFUSED: Final = {"prompt": "a boat", "steps": 0}
"""A request whose images are received and checked before it is refused."""
SMALL: Final = {"prompt": "a boat", "steps": 2, "width": 256, "height": 256}


@dataclass
class Figures:
    """What was measured."""

    health_ms: list[float] = field(default_factory=list)
    upload_seconds: float = 0.0
    before_mib: float = 0.0
    uploads_mib: float = 0.0
    hostile_mib: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def missed(self) -> list[str]:
        """Return the goals that were missed."""
        found = [f"unexpected answers: {', '.join(self.wrong)}"] if self.wrong else []
        if p99(self.health_ms) > HEALTH_P99_MS:
            found.append(f"/health took {p99(self.health_ms):.1f} ms (p99)")
        if self.uploads_mib > MOST_MIB:
            found.append(f"uploads took {self.uploads_mib:.0f} MiB")
        if self.hostile_mib > MOST_HOSTILE_MIB:
            found.append(f"hostile files took {self.hostile_mib:.0f} MiB")
        return found


def p99(values: list[float]) -> float:
    """Return the 99th percentile; 0 of none."""
    return sorted(values)[len(values) * 99 // 100] if values else 0.0


class Memory:
    """Watches the most memory that a process takes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.most = self.now()

    def now(self) -> float:
        """Return the memory in use, in MiB."""
        return float(self._process.memory_info().rss) / MIB

    async def watch(self) -> None:
        """Look every 10 ms."""
        while True:
            self.most = max(self.most, self.now())
            await asyncio.sleep(0.01)


def as_json(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request with a large JSON body."""
    data = io.BytesIO(json.dumps(body).encode())
    return {"data": data, "headers": {"Content-Type": "application/json"}}


def form(name: str, data: bytes, fields: dict[str, Any]) -> aiohttp.FormData:
    """Return a form with a file."""
    found = aiohttp.FormData()
    found.add_field(name, io.BytesIO(data), filename="a", content_type="application/octet-stream")
    for key, value in fields.items():
        found.add_field(key, str(value))
    return found


async def uploads(service: ServiceProcess, session: aiohttp.ClientSession, seen: Figures) -> None:
    """Send large images at the same time, and ask how the service is."""
    image = saved(Image.frombytes("RGB", (SIDE, SIDE), os.urandom(SIDE * SIDE * 3)))
    body = {**REFUSED, "image": base64.b64encode(image).decode()}

    async def send(number: int) -> None:
        sent = {"data": form("image", image, REFUSED)} if number % 2 else as_json(body)
        async with session.post(service.url + "/generate", **sent) as answer:
            problem = await answer.json()
            if set(problem.get("errors", {})) != {"steps"}:
                seen.wrong.append(f"upload {number}: {answer.status} {problem.get('detail')}")

    probe = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.overload.health", service.address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert probe.stdin is not None
    assert probe.stdout is not None
    await probe.stdout.readline()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(send(number) for number in range(CLIENTS)))
    seen.upload_seconds = asyncio.get_running_loop().time() - began
    probe.stdin.close()
    output, _ = await probe.communicate()
    seen.health_ms = [row[1] for row in json.loads(output)]


async def files(service: ServiceProcess, session: aiohttp.ClientSession, seen: Figures) -> None:
    """Send each hostile file, in turns as an image and as a mask, in a form and as JSON."""
    good = base64.b64encode(saved(Image.new("RGB", (64, 64)))).decode()
    for number, (name, data) in enumerate(hostile()):
        where = "mask" if number % 5 == 0 else "image"
        body = {**SMALL, "image": good, where: base64.b64encode(data).decode()}
        sent = as_json(body)
        if number % 2 and data and where == "image":
            sent = {"data": form(where, data, SMALL)}
        try:
            async with session.post(service.url + "/jobs", **sent) as answer:
                said = await answer.json()
        except (aiohttp.ClientError, ValueError) as error:
            seen.wrong.append(f"{name}: {error!r}")
            continue
        seen.answers[f"{answer.status} {said.get('code', '')}".strip()] += 1
        named = set(said.get("errors", ())) == {where}
        if answer.status not in EXPECTED or (answer.status == HTTPStatus.BAD_REQUEST and not named):
            seen.wrong.append(f"{name}: {answer.status} {said}")


async def measured() -> Figures:
    """Return what one service did."""
    with running_service(module="tests.drills.hostile.service", QUEUE_SIZE="1000") as service:
        return await _measured(service)


async def _measured(service: ServiceProcess) -> Figures:
    seen = Figures()
    async with aiohttp.ClientSession() as session:
        memory = Memory(service.process.pid)
        seen.before_mib = memory.most
        watching = asyncio.create_task(memory.watch())
        await uploads(service, session, seen)
        seen.uploads_mib = memory.most - seen.before_mib
        memory.most = seen.before_mib
        await files(service, session, seen)
        seen.hostile_mib = memory.most - seen.before_mib
        watching.cancel()
        if not await service.is_ready():
            seen.wrong.append("it is not ready any more")
        seen.wrong += [str(line) for line in service.lines("request_failed")]
    return seen


def main() -> int:
    """Measure once and say what was found."""
    seen = asyncio.run(measured())
    figures = {
        "health_p99_ms": round(p99(seen.health_ms), 1),
        "health_most_ms": round(max(seen.health_ms), 1),
        "health_samples": len(seen.health_ms),
        "upload_seconds": round(seen.upload_seconds, 1),
        "before_mib": round(seen.before_mib),
        "uploads_mib": round(seen.uploads_mib),
        "hostile_mib": round(seen.hostile_mib),
        "hostile_files": sum(seen.answers.values()),
        "answers": dict(seen.answers),
    }
    print(json.dumps(figures, indent=2))
    for goal in seen.missed():
        print(f"missed: {goal}")
    return 1 if seen.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
