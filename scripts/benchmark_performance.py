"""Measure how fast the service is: latency and throughput by clients, sizes and steps.

Without --url it starts the service itself, with the demo model, on the loopback address. Settings
of the environment hold for it, as MAX_CONCURRENT_REQUESTS and TORCH_THREADS do.

    python scripts/benchmark_performance.py                       the sizes of docs/performance.md
    python scripts/benchmark_performance.py --quick               a minute
    python scripts/benchmark_performance.py --url URL             a service that runs
    python scripts/benchmark_performance.py --compare             in turns with other servers
    python scripts/benchmark_performance.py --out FOLDER          table, JSON and plot as files

With --compare, a plain diffusers server and LitServe get the same requests in turns, with the
same model, in one run. Exit code 1: a request got no image; 2: it cannot be run like that.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
from tqdm import tqdm

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # Started as a file, Python looks into its own folder only.

from scripts.benchmark import report, servers  # noqa: E402
from scripts.benchmark.course import Course  # noqa: E402
from scripts.benchmark.machine import cores, line, machine  # noqa: E402
from scripts.benchmark.rows import (  # noqa: E402
    BenchmarkError,
    Point,
    bounds,
    pair,
    refusal,
    rows,
)
from scripts.chart import EXTRA  # noqa: E402
from scripts.written import demand_writable, filled  # noqa: E402
from service.config.loading import load  # noqa: E402
from service.errors import ConfigError  # noqa: E402
from tests.support.programs import carried_out  # noqa: E402

NAME: Final = "benchmark_performance"
DOCUMENT: Final = ROOT / "docs" / "performance.md"
FULL: Final[dict[str, Any]] = {
    "rows": rows("256x256/20,512x512/20,768x512/25,768x768/30"),
    "clients": (1, 2, 4, 8),
    "requests": 8,
    "mixed": pair("256x256/4+512x512/20"),
}
QUICK: Final[dict[str, Any]] = {
    "rows": rows("256x256/4"),
    "clients": (1, 4),
    "requests": 4,
    "mixed": pair("256x256/2+256x256/12"),
}
MIXED_CLIENTS: Final = 4
MOST_CLIENTS: Final = 256
"""At a time: half of the connections that the service takes by default."""

ROUNDS: Final = 3
"""Of a comparison, so that each of three servers begins once."""

BAR: Final = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


def parser() -> argparse.ArgumentParser:
    """Describe the command line; ``settle`` fills in what has two defaults."""
    root = argparse.ArgumentParser(
        prog=f"python scripts/{NAME}.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = root.add_argument
    add("--url", type=_address, help="a running service; else one is started")
    add("--api-key", default="", metavar="KEY", help="of the running service")
    add("--model", default="demo", help="MODEL_ID of what is started, fetched before (%(default)s)")
    add(
        "--compare",
        type=_others,
        nargs="?",
        const=tuple(servers.OTHERS.values()),
        default=(),
        metavar="plain,litserve",
        help="with these servers, each of which holds a model of its own; without names both",
    )
    add("--rows", type=rows, metavar="256x256/20,512x512/20", help="sizes and steps")
    add("--clients", type=_crowds, metavar="1,2,4,8", help="at a time")
    add("--requests", type=_count, help="of a turn (8), two a client at least")
    add("--rounds", type=_count, help="turns of each server (1; to compare 3)")
    add("--mixed", type=_mixture, metavar="SHORT+LONG", help="a mixed load, or none")
    add("--quick", action="store_true", help="small images, few requests")
    files = root.add_mutually_exclusive_group()
    files.add_argument("--out", type=Path, metavar="FOLDER", help="for performance.json, .md, .png")
    files.add_argument("--write", action="store_true", help="docs/performance.*; needs --compare")
    return root


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise BenchmarkError(f"{text!r} is not a whole number above 0")
    return int(text)


def _crowds(text: str) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(_count(part) for part in text.split(",")))
    if max(found) > MOST_CLIENTS:
        raise BenchmarkError(f"{text!r} is more than {MOST_CLIENTS} clients")
    return found


def _mixture(text: str) -> tuple[Any, ...]:
    return () if text == "none" else pair(text)


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise BenchmarkError(f"{text!r} does not begin with http:// or https://")
    return text.rstrip("/")


def _others(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(servers.OTHERS):
        raise BenchmarkError(f"{text!r} is not of {', '.join(servers.OTHERS)}")
    return tuple(servers.OTHERS[name] for name in names)


def check(given: argparse.Namespace) -> None:
    """Insist that what is asked for can be done, before anything is started.

    Raises:
        BenchmarkError, ConfigError: names what cannot, and the fix.

    """
    if given.write and not given.compare:
        raise BenchmarkError("--write needs --compare: docs/performance.md compares servers")
    if given.compare and given.url:
        raise BenchmarkError(
            "--compare starts all servers itself, with equal threads and batches: leave out --url"
        )
    if given.api_key and not given.url:
        raise BenchmarkError("--api-key is of a running service: name it with --url")
    files = []
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        files = [("--out", given.out / f"performance.{kind}") for kind in ("json", "md", "png")]
    if given.write:
        files += [("--write", DOCUMENT), ("--write", DOCUMENT.with_suffix(".png"))]
    for argument, file in files:
        demand_writable(argument, file)
    if files and find_spec("matplotlib") is None:
        raise BenchmarkError(f"matplotlib is not installed; {EXTRA} brings it")
    servers.require(given.compare)


def settle(given: argparse.Namespace) -> None:
    """Fill in what depends on other arguments."""
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.rounds = given.rounds or (ROUNDS if given.compare else 1)


def points(given: argparse.Namespace, fields: dict[str, Any]) -> list[Point]:
    """Return what is measured: what was asked for, or of the defaults what is allowed.

    Raises:
        BenchmarkError: what was asked for is not allowed, or of the defaults nothing is.

    """
    for row in (*(given.rows or ()), *(given.mixed or ())):
        if why := refusal(row, fields):
            raise BenchmarkError(why)
    settle(given)
    found = []
    for row in given.rows:
        if why := refusal(row, fields):
            print(f"left out: {why}", file=sys.stderr)
        else:
            found += [Point(rows=(row,), clients=clients) for clients in given.clients]
    if given.mixed and not any(refusal(row, fields) for row in given.mixed):
        found.append(Point(rows=given.mixed, clients=MIXED_CLIENTS))
    if not found:
        raise BenchmarkError("none of the default sizes is allowed: name some with --rows")
    return found


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Find or start the servers and run the course; return what ``report.json`` makes of it."""
    config = load(os.environ)
    threads, batch = config.torch_threads or cores(), config.max_concurrent_requests
    settings = {
        "MODEL_ID": given.model,
        "TORCH_THREADS": str(threads),
        "MAX_CONCURRENT_REQUESTS": str(batch),
        "QUEUE_SIZE": str(max(64, 2 * max(given.clients or FULL["clients"]))),
    }
    async with aiohttp.ClientSession(
        # A connection for each request: what was kept open while its server stood still is too old.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        headers={"X-API-Key": given.api_key} if given.api_key else None,
    ) as session:
        found = (
            servers.listening(given.url, session)
            if given.url
            else servers.running(settings, given.compare, folder, session)
        )
        async with found as ready:
            client = ready[0].client
            fields = bounds(await servers.described(client, "/openapi.json"))
            asked = points(given, fields)
            health = await servers.described(client, "/health")
            with tqdm(bar_format=BAR, file=sys.stderr, disable=None) as bar:

                def show(load: str) -> None:
                    bar.set_description_str(load, refresh=False)
                    bar.update()

                course = Course(
                    servers=ready,
                    points=asked,
                    requests=given.requests,
                    rounds=given.rounds,
                    show=show,
                )
                bar.reset(total=course.most)
                outcome = await course.run()
    return report.json(
        outcome, machine(health) if given.url else machine(health, threads=threads, batch=batch)
    )


def document(text: str, found: dict[str, Any], typed: str) -> str:
    """Return docs/performance.md with the figures of this run."""
    apart = max(found["differences"].values(), default=0.0)
    run = (
        f"`{typed}`, written by the command itself.\n{line(found['machine'])}.\n"
        f"{found['rounds']} rounds; the largest mean difference between the images of two servers "
        f"was {apart:.3f} levels of 255."
    )
    blocks = {"run": run, "summary": report.summary(found), "figures": report.tables(found)}
    return filled(text, lambda _kind, name: [blocks[name]])


def keep(given: argparse.Namespace, found: dict[str, Any], typed: str) -> None:
    """Write the files that are asked for."""
    plots = []
    if given.out:
        text = json.dumps(found, indent=1)
        (given.out / "performance.json").write_text(f"{text}\n", encoding="utf-8")
        (given.out / "performance.md").write_text(f"{report.text(found)}\n", encoding="utf-8")
        plots.append(given.out / "performance.png")
    if given.write:
        text = document(DOCUMENT.read_text(encoding="utf-8"), found, typed)
        DOCUMENT.write_text(text, encoding="utf-8")
        plots.append(DOCUMENT.with_suffix(".png"))
    for file in plots:
        from scripts.benchmark import plot  # noqa: PLC0415 - the extra may be absent

        plot.draw(found, file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    given = parser().parse_args(words)
    try:
        check(given)
        found = carried_out(NAME, None, lambda folder: measure(given, folder))
        print(report.text(found))
        keep(given, found, shlex.join(["python", f"scripts/{NAME}.py", *words]))
    except (BenchmarkError, ConfigError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    if failed := report.faults(found):
        print(f"{NAME}: {failed} requests got no image", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
