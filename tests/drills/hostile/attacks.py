"""Six ways in which one client makes the others wait, where a service lets it.

``python -m tests.drills.hostile.attacks PORT KEY SOURCE HOSTS NAMES`` carries them out, in a
process of its own, whose CPU time is the attack's; ``HOSTS`` and ``NAMES`` between commas. A line
``go`` lets it attack and ``rest`` lets it rest, with its connections open. When its input ends,
it prints as JSON what it was answered and which jobs were taken.
"""

import asyncio
import json
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from tests.support.wire import Held, Line, Target

JOB: Final = {"prompt": "a cabin in the woods", "width": 256, "height": 256, "steps": 1}
LARGE: Final = {**JOB, "width": 768, "height": 768}
LONG: Final = {**JOB, "steps": 50}
LONG_SECONDS: Final = 2.5
"""How long 50 steps of the fake engine take: then comes the next job to watch."""

HEAD_START_SECONDS: Final = 2.0
"""Floods begin later: once all of a client's connections are taken, its jobs are refused, too."""

HALF_BODY: Final = b'{"prompt": "a cabin in the '
PROMISED_BYTES: Final = 2000


@dataclass(kw_only=True)
class Attacker:
    """One client with one key, and everything that it does."""

    target: Target
    hosts: tuple[str, ...]  # Addresses with ports, where webhooks are accepted and never answered.
    going: asyncio.Event = field(default_factory=asyncio.Event)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)  # Ids of the jobs that were taken.

    async def webhooks(
        self, tally: Counter[str], *, url: str, burst: int, per_second: float
    ) -> None:
        """Hand in jobs whose webhooks go to ``url``; a burst first, then at a pace."""
        line, number = Line(self.target), 0
        async for _ in self._every(1 / per_second):
            for _ in range(1 if number else burst):
                host = self.hosts[number % len(self.hosts)]
                webhook = url.format(host=host, number=number)
                await self._submit(line, {**JOB, "webhook": webhook}, tally)
                number += 1

    async def unread_answers(self, tally: Counter[str]) -> None:
        """Ask for large answers and read none of them."""
        line = Line(self.target)
        await self.going.wait()
        job = await self._submit(line, LARGE, tally)
        line.close()
        paths = ["/docs/swagger-ui-bundle.js", *([f"/jobs/{job}/image"] if job else [])]
        requests = [self.target.request("GET", path) for path in paths]
        await self._hold(lambda number: requests[number % len(requests)], tally, 500, 100)

    async def partial_bodies(self, tally: Counter[str]) -> None:
        """Promise bodies and send a part of them."""
        request = self.target.request("POST", "/generate", HALF_BODY, length=PROMISED_BYTES)
        await self._hold(lambda _: request, tally, 560, 100)

    async def watchers(self, tally: Counter[str]) -> None:
        """Watch jobs, half of the watchers with previews."""
        line, watched = Line(self.target), ""

        def request(number: int) -> bytes | None:
            if not watched:
                return None
            query = "?preview=true" if number % 2 else ""
            return self.target.request("GET", f"/jobs/{watched}/events{query}")

        held = asyncio.create_task(self._hold(request, tally, 150, 60))
        try:
            async for _ in self._every(LONG_SECONDS):
                watched = await self._submit(line, LONG, tally) or watched
        finally:
            held.cancel()

    async def wrong_keys(self, tally: Counter[str]) -> None:
        """Guess keys, in both headers that carry one."""
        line, number = Line(self.target), 0
        async for _ in self._every(1 / 20):
            number += 1
            guess = f"guess-{number}-0123456789abcdef"
            bearer = {"X-API-Key": "", "Authorization": f"Bearer {guess}"}
            headers = bearer if number % 2 else {"X-API-Key": guess}
            status, _ = await line.ask("GET", "/jobs", headers=headers)
            tally[str(status)] += 1

    async def _hold(
        self,
        request: Callable[[int], bytes | None],
        tally: Counter[str],
        most: int,
        per_second: float,
    ) -> None:
        await self.going.wait()
        await asyncio.sleep(HEAD_START_SECONDS)
        await Held(self.target, request, tally).keep(most, per_second, self.going)

    async def _submit(self, line: Line, body: Mapping[str, Any], tally: Counter[str]) -> str:
        """Hand a job in; return its id, none where it was refused."""
        status, answer = await line.ask("POST", "/jobs", body)
        tally[str(status)] += 1
        if status != HTTPStatus.ACCEPTED:
            return ""
        job = str(json.loads(answer)["id"])
        self.accepted.append(job)
        return job

    async def _every(self, seconds: float) -> AsyncIterator[None]:
        """Yield at that pace while the attack goes on; what was missed is left out."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            await self.going.wait()
            due = max(due + seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            yield


Attack = Callable[[Attacker, Counter[str]], Coroutine[Any, Any, None]]
UNANSWERED, SILENT = "https://h{number}.example/", "http://{host}/{number}"

ATTACKS: Final[Mapping[str, Attack]] = {
    "names": partial(Attacker.webhooks, url=UNANSWERED, burst=30, per_second=2),
    "hosts": partial(Attacker.webhooks, url=SILENT, burst=40, per_second=6),
    "unread": Attacker.unread_answers,
    "bodies": Attacker.partial_bodies,
    "watchers": Attacker.watchers,
    "keys": Attacker.wrong_keys,
}


async def attack(attacker: Attacker, names: list[str]) -> None:
    """Attack as the input says until it ends."""
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    attacker.tallies = {name: Counter() for name in names}
    tasks = [
        asyncio.create_task(ATTACKS[name](attacker, tally))
        for name, tally in attacker.tallies.items()
    ]
    print("ready", flush=True)
    while line := await told.readline():
        if line.strip() == b"go":
            attacker.going.set()
        else:
            attacker.going.clear()
    broken = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for error in broken:
        raise error or RuntimeError("An attack ended by itself.")


def main(port: str, key: str, source: str, hosts: str, names: str) -> None:
    """Attack, and say what came of it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # It holds 1,200 connections.
    target = Target(port=int(port), key=key, source=source)
    attacker = Attacker(target=target, hosts=tuple(hosts.split(",")))
    asyncio.run(attack(attacker, names.split(",")))
    print(json.dumps({"tallies": attacker.tallies, "accepted": attacker.accepted}))


if __name__ == "__main__":
    main(*sys.argv[1:])
