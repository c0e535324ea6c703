"""Show how soon the engine is free of a picture that nobody wants any more.

Starts the service with the demo model on the loopback address and asks for pictures of 50
steps, one at a time. Each is given up at a random moment: by ``DELETE /jobs/{id}``, by closing
the connection of a ``POST /generate``, or by ``X-Request-Timeout``. The service's own log then
tells how many steps the picture had when the end was known, and how many when it left the batch.

    python -m scripts.cancel_figure                 50 pictures
    python -m scripts.cancel_figure --jobs 9        fewer
    python -m scripts.cancel_figure --write         the outcome into docs/cancellation.md, too

Exit code 1: a picture was still worked on after the step in work and the one after it.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp

from scripts.drill.carried_out import carried_out
from scripts.drill.service import Service, service_in
from scripts.drill.wait import until

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "cancellation.md"
SETTINGS: Final = {"FAULT_FILE": "", "MIN_SIZE": "256"}
BODY: Final = {"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "steps": 50}
WARM: Final = 2
SECONDS: Final = 60.0
EARLIEST: Final = 0.1
LATEST: Final = 0.8
"""Parts of a whole picture's time between which it is given up."""

MOST_STEPS: Final = 1
"""That a picture may get after its end is known: the one that is being done."""

IN_FLIGHT: Final = 1
"""Steps that are done, and whose report has not come to the service when it looks."""


class Way(StrEnum):
    """How a picture is given up."""

    DELETED = "`DELETE /jobs/{id}`"
    HUNG_UP = "connection closed"
    TIMED_OUT = "`X-Request-Timeout`"


@dataclass(frozen=True, kw_only=True)
class Left:
    """One picture that was given up; times are seconds since 1970."""

    way: Way
    given_up: float
    noticed: float
    free: float
    """When the engine said that it has left the batch."""
    known: int
    """Steps that the service knew of when it noticed."""
    done: int
    """Steps that the engine had done when the picture left."""

    @property
    def after(self) -> int:
        """Steps that were done after the service noticed, or that it had not heard of."""
        return self.done - self.known


@dataclass(kw_only=True)
class Outcome:
    """All pictures, and how long a step takes."""

    step: float = 0.0
    left: list[Left]


class Figure:
    """Asks for pictures and gives them up."""

    def __init__(self, service: Service, session: aiohttp.ClientSession, seed: int) -> None:
        self._service = service
        self._session = session
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret

    async def whole(self) -> float:
        """Make one picture to its end; return its seconds in the engine."""
        async with self._session.post(f"{self._service.url}/generate", json=BODY) as answer:
            answer.raise_for_status()
            return float((await answer.json())["metadata"]["generation_time_seconds"])

    async def give_up(self, way: Way, number: int, whole: float) -> Left | None:
        """Ask for one picture and give it up; return what the log says of it.

        None where it was finished before: the machine was quicker than it had been.
        """
        name = f"figure-{number}"
        seconds = whole * self._chance.uniform(EARLIEST, LATEST)
        begun = time.time()
        if way is Way.DELETED:
            given_up = await self._delete(name, seconds)
        elif way is Way.HUNG_UP:
            given_up = await self._hang_up(name, seconds)
        else:
            await self._generate(name, {"X-Request-Timeout": f"{seconds:.3f}"})
            given_up = begun + seconds
        ended, left = await until(lambda: self._logged(name), SECONDS, f"the end of {name}")
        if ended["outcome"] == "succeeded":
            return None
        return Left(
            way=way,
            given_up=given_up,
            noticed=_time(ended),
            free=_time(left),
            known=ended["steps_done"],
            done=left["steps_done"],
        )

    async def _delete(self, name: str, seconds: float) -> float:
        url, headers = f"{self._service.url}/jobs", {"X-Request-ID": name}
        async with self._session.post(url, json=BODY, headers=headers) as answer:
            job = (await answer.json())["id"]
        await asyncio.sleep(seconds)
        given_up = time.time()
        async with self._session.delete(f"{url}/{job}") as answer:
            answer.raise_for_status()
        return given_up

    async def _hang_up(self, name: str, seconds: float) -> float:
        request = asyncio.create_task(self._generate(name, {}))
        await asyncio.sleep(seconds)
        given_up = time.time()
        request.cancel()  # aiohttp closes a connection whose answer nobody reads.
        with suppress(asyncio.CancelledError):
            await request
        return given_up

    async def _generate(self, name: str, headers: dict[str, str]) -> None:
        async with self._session.post(
            f"{self._service.url}/generate", json=BODY, headers={"X-Request-ID": name, **headers}
        ) as answer:
            await answer.read()

    async def _logged(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the lines of a picture's end, and of the batch without it, once both are there."""
        text = self._service.child.output.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        ended = [e for e in lines if e["event"] == "job_ended" and e["request_id"] == name]
        left = [
            e
            for e in lines
            if e["event"] == "job_left_batch" and ended and e["job_id"] == ended[0]["job_id"]
        ]
        if ended and ended[0]["outcome"] == "succeeded":
            return ended[0], ended[0]
        return (ended[0], left[0]) if left else None


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


async def run(folder: Path, jobs: int, seed: int) -> Outcome:
    """Give up so many pictures, each way in turn."""
    outcome = Outcome(left=[])
    async with service_in(folder, SETTINGS) as service, aiohttp.ClientSession() as session:
        await service.start()
        figure = Figure(service, session, seed)
        whole = min([await figure.whole() for _ in range(WARM)])
        outcome.step = whole / BODY["steps"]  # type: ignore[operator]
        ways = list(Way)
        for number in itertools.count():
            if len(outcome.left) == jobs:
                break
            left = await figure.give_up(ways[len(outcome.left) % len(ways)], number, whole)
            outcome.left += [left] if left else []
    return outcome


def table(outcome: Outcome) -> str:
    """Return the outcome as Markdown."""
    lines = [
        "| Given up by | Pictures | Steps done after | Noticed after, ms | Engine free then, ms |",
        "|---|---|---|---|---|",
    ]
    for way in Way:
        own = [left for left in outcome.left if left.way is way]
        after = Counter(left.after for left in own)
        cells = (
            way.value,
            str(len(own)),
            ", ".join(f"{steps}: {count} times" for steps, count in sorted(after.items())),
            _milliseconds([left.noticed - left.given_up for left in own]),
            _milliseconds([left.free - left.noticed for left in own]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * median(seconds):.0f}, {1000 * max(seconds):.0f}" if seconds else ""


def document(given: argparse.Namespace, outcome: Outcome) -> str:
    """Return docs/cancellation.md."""
    return f"""# A picture that nobody wants frees the engine within a step

`python -m scripts.cancel_figure --jobs {given.jobs} --seed {given.seed}`: the service with the
demo model and its real engine process; pictures of 256x256 with 50 steps, one at a time, each
given up at a random moment. A step takes {1000 * outcome.step:.0f} ms here. Written by the
command itself, with `--write`.

{table(outcome)}

- Times: median and longest, by the service's log. A hang-up is noticed when the end of the
  connection arrives; a deadline runs from where the service has read the request.
- "Steps done after": what the engine had done when the picture left the batch, less what the
  service knew of when it noticed the end. 1 is the step that was being done; at 2 one more was
  done, and its report on the way.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the figure; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.cancel_figure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=50, metavar="N")
    parser.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
    parser.add_argument("--write", action="store_true", help="write docs/cancellation.md")
    given = parser.parse_args(arguments)
    outcome = carried_out("figure", given.folder, lambda place: run(place, given.jobs, given.seed))
    print(f"a step takes {1000 * outcome.step:.0f} ms\n\n{table(outcome)}")
    if given.write:
        DOCUMENT.write_text(document(given, outcome), encoding="utf-8")
    most = max((left.after for left in outcome.left), default=0)
    return 0 if outcome.left and most <= MOST_STEPS + IN_FLIGHT else 1


if __name__ == "__main__":
    sys.exit(main())
