"""Measure how fast the service is: latency and throughput by clients, sizes and steps.

Without --url it starts the service itself, with the demo model, on the loopback address.

    python scripts/benchmark_performance.py                       the README's sizes
    python scripts/benchmark_performance.py --quick               a minute
    python scripts/benchmark_performance.py --url URL             a service that runs
    python scripts/benchmark_performance.py --compare             beside other servers
    python scripts/benchmark_performance.py --out FOLDER          table, JSON and plot as files

With --compare, a plain diffusers server and LitServe get the same requests in turns, with the
same model, in one run. Exit code 1: a request got no picture; 2: it cannot be run like that.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
from tqdm import tqdm

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # Started as a file, Python looks beside the file only.

from scripts.benchmark import document, report, servers  # noqa: E402
from scripts.benchmark.course import Course, Outcome  # noqa: E402
from scripts.benchmark.limits import Limits  # noqa: E402
from scripts.benchmark.machine import Machine, cores, machine  # noqa: E402
from scripts.benchmark.rows import (  # noqa: E402
    BOTH,
    BenchmarkError,
    Mixed,
    Point,
    Steady,
    pair,
    rows,
)
from scripts.chart import EXTRA  # noqa: E402
from scripts.drill.carried_out import carried_out  # noqa: E402
from scripts.drill.written import demand_writable  # noqa: E402
from service.errors import ConfigError  # noqa: E402

NAME: Final = "benchmark_performance"
FULL: Final[dict[str, Any]] = {
    "rows": rows("256x256/20,512x512/20,768x512/25,768x768/30"),
    "clients": (1, 2, 4, 8),
    "requests": 8,
    "mixed": pair("256x256/4+512x512/20"),
    "mixed_clients": 4,
}
QUICK: Final[dict[str, Any]] = {
    "rows": rows("256x256/4"),
    "clients": (1, 4),
    "requests": 4,
    "mixed": pair("256x256/2+256x256/12"),
    "mixed_clients": 4,
}
MOST_CLIENTS: Final = 256
"""At a time: half of the connections that the service takes by default."""

ROUNDS: Final = 3
"""Of a comparison, so that each of three servers begins once."""

FILES: Final = {"json": "performance.json", "markdown": "performance.md", "plot": "performance.png"}
OWN: Final = frozenset(
    {"--api-key", "--folder", "--out", "--url", *(f"--{name}" for name in FILES)}
)
"""Arguments that mean nothing to others."""

BAR: Final = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


def parser() -> argparse.ArgumentParser:
    """Describe the command line; what has two defaults is None here."""
    root = argparse.ArgumentParser(
        prog=f"python scripts/{NAME}.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # ``command`` leaves arguments out by their whole names.
    )
    who = root.add_argument_group("who is measured")
    who.add_argument("--url", type=_url, help="a running service; else one is started")
    who.add_argument("--api-key", default="", metavar="KEY", help="of the running service")
    who.add_argument(
        "--model", default="demo", help="MODEL_ID of what is started, fetched before (%(default)s)"
    )
    who.add_argument(
        "--batch", type=_count, default=3, help="MAX_CONCURRENT_REQUESTS (%(default)s)"
    )
    who.add_argument("--threads", type=_count, default=cores(), help="of torch (%(default)s)")
    who.add_argument(
        "--compare",
        type=_beside,
        nargs="?",
        const=tuple(servers.BESIDE.values()),
        default=(),
        metavar="plain,litserve",
        help="beside these servers, each of which holds a model of its own; without names both",
    )
    what = root.add_argument_group("what is asked for")
    what.add_argument("--rows", type=_rows, metavar="256x256/20,512x512/20", help="sizes and steps")
    what.add_argument("--clients", type=_crowds, metavar="1,2,4,8", help="at a time")
    what.add_argument("--requests", type=_count, help="of a turn (8), two a client at least")
    what.add_argument("--rounds", type=_count, help="turns of each server (1; to compare 3)")
    what.add_argument(
        "--seconds",
        type=_time,
        default=600.0,
        help="no request of a turn begins later (%(default)g)",
    )
    what.add_argument("--mixed", type=_pair, metavar="SHORT+LONG", help="a mixed load, or none")
    what.add_argument("--mixed-clients", type=_half, help="of the mixed load (4), two at least")
    what.add_argument("--quick", action="store_true", help="small pictures, few requests")
    out = root.add_argument_group("what is written")
    out.add_argument("--json", type=Path, metavar="FILE")
    out.add_argument("--markdown", type=Path, metavar="FILE")
    out.add_argument("--plot", type=Path, metavar="FILE.png")
    out.add_argument("--out", type=Path, metavar="FOLDER", help="all three")
    out.add_argument("--write", action="store_true", help="docs/performance.* and the README")
    out.add_argument("--folder", type=Path, help="where logs go; else a temporary folder")
    return root


def _typed(read: Any) -> Any:
    """Return a type of an argument whose complaints are shown as they are."""

    def typed(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def _whole(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


def _crowd(text: str) -> int:
    if (count := _whole(text)) > MOST_CLIENTS:
        raise ValueError(f"{text!r} is more than {MOST_CLIENTS} clients")
    return count


def _halves(text: str) -> int:
    if (count := _crowd(text)) < BOTH:
        raise ValueError(f"{text!r} is less than {BOTH}: one for short pictures, one for long ones")
    return count


def _while(text: str) -> float:
    if not 0 < (seconds := float(text)) < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} does not begin with http:// or https://")
    return text.rstrip("/")


def _others(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(servers.BESIDE):
        raise ValueError(f"{text!r} is not of {', '.join(servers.BESIDE)}")
    return tuple(servers.BESIDE[name] for name in names)


_rows = _typed(rows)
_count = _typed(_whole)
_time = _typed(_while)
_half = _typed(_halves)
_crowds = _typed(lambda text: tuple(dict.fromkeys(_crowd(part) for part in text.split(","))))
_pair = _typed(lambda text: () if text == "none" else pair(text))
_url = _typed(_address)
_beside = _typed(_others)


def points(given: argparse.Namespace, limits: Limits) -> list[Point]:
    """Return what is measured: what was asked for, or of the defaults what is allowed.

    Raises:
        BenchmarkError: what was asked for is not allowed, or of the defaults nothing is.

    """
    defaults = QUICK if given.quick else FULL
    chosen = {name: _given(given, name, value) for name, value in defaults.items()}
    limits.demand(given.rows or ())
    limits.demand(given.mixed or ())
    allowed = [row for row in chosen["rows"] if not limits.refusal(row)]
    for row in chosen["rows"]:
        if refusal := limits.refusal(row):
            print(f"left out: {refusal}", file=sys.stderr)
    found: list[Point] = [
        Steady(row=row, clients=clients) for row in allowed for clients in chosen["clients"]
    ]
    if chosen["mixed"] and not any(map(limits.refusal, chosen["mixed"])):
        short, long = chosen["mixed"]
        found.append(Mixed(short=short, long=long, clients=chosen["mixed_clients"]))
    if not found:
        raise BenchmarkError("none of the default sizes is allowed: name some with --rows")
    return found


def _given(given: argparse.Namespace, name: str, default: Any) -> Any:
    value = getattr(given, name)
    return default if value is None else value


async def measure(given: argparse.Namespace, folder: Path) -> tuple[Outcome, Machine]:
    """Find or start the servers and run the course."""
    timeout = aiohttp.ClientTimeout(total=20)
    # A connection for each request: what was kept open while its server stood still is too old.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    defaults = QUICK if given.quick else FULL
    most = max(
        *_given(given, "clients", defaults["clients"]),
        _given(given, "mixed_clients", defaults["mixed_clients"]),
    )
    wanted = servers.Wanted(
        model=given.model,
        threads=given.threads,
        batch=given.batch,
        queue=max(64, 2 * most),
        beside=given.compare,
    )
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        found = (
            servers.listening(given.url, given.api_key, session)
            if given.url
            else servers.running(wanted, folder, session)
        )
        async with found as ready:
            url = ready[0].url
            described = await servers.told(session, url, given.api_key, "/openapi.json")
            asked = points(given, Limits.described(described))
            health = await servers.told(session, url, given.api_key, "/health")
            with tqdm(bar_format=BAR, file=sys.stderr, disable=None) as bar:

                def show(what: str, work: int) -> None:
                    bar.set_description_str(what, refresh=False)
                    bar.update(min(work, course.work - bar.n))  # Long ones are guessed.

                course = Course(
                    servers=ready,
                    points=asked,
                    requests=_given(given, "requests", defaults["requests"]),
                    rounds=given.rounds or (ROUNDS if given.compare else 1),
                    seconds=given.seconds,
                    show=show,
                )
                bar.reset(total=course.work)
                outcome = await course.run()
                show("done", course.work)
    own = {} if given.url else {"threads": given.threads, "batch": given.batch}
    return outcome, machine(health, **own)


def check(given: argparse.Namespace) -> None:
    """Insist that what is asked for can be done, before anything is started.

    Raises:
        BenchmarkError, ConfigError: names what cannot, and the cure.

    """
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        for name, file in FILES.items():
            setattr(given, name, getattr(given, name) or given.out / file)
    for name in FILES:
        demand_writable(f"--{name}", getattr(given, name))
    for place in (document.DOCUMENT, document.PLOT, document.README) if given.write else ():
        demand_writable("--write", place)
    if (given.plot or given.write) and find_spec("matplotlib") is None:
        raise BenchmarkError(f"matplotlib is not installed; {EXTRA} brings it")
    if given.compare and given.url:
        raise BenchmarkError(
            "--compare starts all servers itself, with equal threads and batches: leave out --url"
        )
    servers.require(given.compare)


def command(words: Sequence[str]) -> str:
    """Return what to type for the same again: no key, and no place on this machine."""
    left = []
    words = list(words)
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name not in OWN:
            left.append(word)
        elif not value and words:
            words.pop(0)
    return shlex.join(["python", f"scripts/{NAME}.py", *left])


def keep(given: argparse.Namespace, outcome: Outcome, computer: Machine, line: str) -> None:
    """Write the files that are asked for."""
    if given.json:
        text = json.dumps(report.json(outcome, computer), indent=1)
        given.json.write_text(f"{text}\n", encoding="utf-8")
    if given.markdown:
        text = f"{computer}\n\n{report.tables(outcome)}\n"
        given.markdown.write_text(text, encoding="utf-8")
    if given.write:
        document.write(line, outcome, computer)
    pictures = [given.plot] if given.plot else []
    for file in [*pictures, document.PLOT] if given.write else pictures:
        from scripts.benchmark import plot  # noqa: PLC0415 - the extra may be absent

        plot.draw(outcome, computer, file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    given = parser().parse_args(words)
    try:
        check(given)
        outcome, computer = carried_out(NAME, given.folder, lambda folder: measure(given, folder))
        print(f"{computer}\n\n{report.tables(outcome)}")
        keep(given, outcome, computer, command(words))
    except (BenchmarkError, ConfigError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    if failed := report.faults(outcome):
        print(f"{NAME}: {failed} requests got no picture", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
