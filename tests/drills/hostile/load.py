"""The other key's steady load: images, jobs with webhooks, and probes of the service's life."""

import asyncio
import math
import time
from http import HTTPStatus
from typing import Final

from tests.drills.hostile.figures import Side
from tests.support.load_client import FAILURES, PNG, Answer, Client, paced

SOURCE: Final = "127.0.0.2"
PROBER: Final = "127.0.0.3"  # Probes come from an address of their own, as a load balancer's do.
IMAGES_PER_SECOND: Final = 2.0
JOBS_PER_SECOND: Final = 1.0
PROBES_PER_SECOND: Final = 10.0
IMAGE: Final = {"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "steps": 10}
JOB: Final = {**IMAGE, "steps": 2}
PATIENCE_SECONDS: Final = 20.0  # What has not come by then counts as missing.
PROBE_SECONDS: Final = 10.0
PROBE: Final = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Load:
    """The other key's requests to one service; what comes of them goes into ``side``."""

    def __init__(self, client: Client, webhook: str) -> None:
        self.side = Side()
        self.client = client
        self._port = int(client.url.rpartition(":")[2])
        self._webhook = webhook
        self._seed = 0

    async def window(self, seconds: float) -> None:
        """Send the load for that long, and wait until everything was answered."""
        await asyncio.gather(
            paced(self._image, IMAGES_PER_SECOND, seconds),
            paced(self._job, JOBS_PER_SECOND, seconds),
            paced(self._probe, PROBES_PER_SECOND, seconds),
        )

    async def _image(self) -> None:
        self._seed += 1
        body = {**IMAGE, "seed": self._seed}
        answer = await self.client.generate(body, headers=PNG, seconds=PATIENCE_SECONDS)
        came = self._is(answer, HTTPStatus.OK, "/generate") and answer.content[1:4] == b"PNG"
        self.side.images.append(answer.ended - answer.sent if came else math.inf)

    async def _job(self) -> None:
        answer = await self.client.ask("POST", "/jobs", {**JOB, "webhook": self._webhook})
        if self._is(answer, HTTPStatus.ACCEPTED, "/jobs"):
            self.side.accepted.append(answer.body["id"])

    def _is(self, answer: Answer, status: HTTPStatus, path: str) -> bool:
        if answer.status != status:
            self.side.refused[f"{path} {answer.status or answer.error.split()[0]}"] += 1
        return answer.status == status

    async def _probe(self) -> None:
        """Ask on a new connection, as kubelet does."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, local_addr=(PROBER, 0)
                )
                writer.write(PROBE)
                said = (await reader.readline()).split()
                writer.close()
            status = said[1].decode()
        except (*FAILURES, IndexError) as error:
            status = type(error).__name__
        took = time.perf_counter() - began
        if status != str(HTTPStatus.OK.value):
            self.side.refused[f"/health/live {status}"] += 1
            took = math.inf
        self.side.probes.append(took)
