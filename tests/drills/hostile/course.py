"""The course of the drill: windows with the attack and windows with a busy loop, in turn.

Two services run at a time, one of which is never attacked. The same load goes to either in its
own windows, so that whatever else the machine does is met by both.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.drills.common.drill import Given
from tests.drills.common.ledger import FINAL, delays, lost, settled
from tests.drills.common.report import MIB, percentile
from tests.drills.common.samples import EVERY_SECONDS, resident, weighed
from tests.drills.hostile.figures import BACK_SECONDS, Memory, Round, is_back, missing, rate
from tests.drills.hostile.load import SOURCE as NEIGHBOURS_SOURCE
from tests.drills.hostile.load import Load
from tests.support.load_client import client_of
from tests.support.receiver import receiving
from tests.support.service_process import ServiceProcess, service_in
from tests.support.worker import Worker, working

SOURCE: Final = "127.0.0.1"  # The attacker's address.
ATTACKER: Final = "hostile-attacker-0123456789abcdef"
NEIGHBOUR: Final = "hostile-neighbour-0123456789abcdef"
KEYS: Final = f"attacker:{ATTACKER}\nneighbour:{NEIGHBOUR}\n"

LIMITS: Final = {
    "DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "LOG_LEVEL": "WARNING",
    "WEBHOOK_HOSTS": "127.0.0.0/8",
    "MAX_CONCURRENT_REQUESTS": "8",
    "SHUTDOWN_TIMEOUT_SECONDS": "2",
}
"""Places for all images in one batch: what is tried is the service, not the turns of a queue.
Everything else is as it is by default."""

SILENT_HOSTS: Final = 40
WINDOW_SECONDS: Final = 15.0
WARM_SECONDS: Final = 6.0
BREATH_SECONDS: Final = 1.0  # Before the first window, for what the warm-up left.


def windows(seconds: float, longest: float) -> list[float]:
    """Return the lengths of equal windows that last ``seconds`` together."""
    count = max(round(seconds / longest), 1)
    return [seconds / count] * count


def rounds(given: Given) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield what is done: a name, the attacks and their seconds."""
    if given.each:
        for name in given.attacks:
            yield name, (name,), given.each
    if given.seconds:
        yield "all", given.attacks, given.seconds


async def run(given: Given, folder: Path) -> list[Round]:
    """Do the drill and return what it saw."""
    return [
        await _round(name, attacks, windows(seconds, given.window), folder / name)
        for name, attacks, seconds in rounds(given)
    ]


async def _round(
    name: str, attacks: Sequence[str], lengths: Sequence[float], folder: Path
) -> Round:
    """Attack one service and not the other, window by window."""
    seen, came, sizes = Round(name=name), dict[str, float](), list[int]()

    async def accept(request: web.Request) -> web.Response:
        now = time.time()
        came.setdefault(str((await request.json())["id"]), now)
        return web.Response(status=204)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        # Before the services, which end first then: what listens waits for its connections' end.
        hosts = await enter(_silent_hosts())
        webhook = await enter(receiving(accept, NEIGHBOURS_SOURCE))
        services = [await enter(_service(folder / side)) for side in ("attacked", "spared")]
        loads = [
            Load(await enter(client_of(each.url, key=NEIGHBOUR, source=NEIGHBOURS_SOURCE)), webhook)
            for each in services
        ]
        words = (services[0].settings["API_PORT"], ATTACKER, SOURCE, ",".join(hosts))
        attacker = await enter(working("tests.drills.hostile.attacks", *words, ",".join(attacks)))
        burner = await enter(working("tests.drills.hostile.burner"))
        await asyncio.gather(*(load.window(WARM_SECONDS) for load in loads))
        loads[0].side, loads[1].side = seen.attack, seen.control
        await asyncio.sleep(BREATH_SECONDS)
        pid, memory = services[0].pid, seen.memory
        memory.before = resident(pid)
        async with weighed(pid, sizes):
            for number, length in enumerate(lengths, start=1):
                pace = await _window(loads[0], attacker, ("go", "rest"), length)
                await _window(loads[1], burner, (f"{pace:.4f}", "0"), length)
                memory.most = max(sizes)
                _show(seen, number, len(lengths))
        said = json.loads(await attacker.end())  # Its connections end with it.
        await _back(pid, memory)
        seen.tallies = said["tallies"]
        await _account(seen, loads, came, said["accepted"])
    return seen


async def _window(load: Load, worker: Worker, words: tuple[str, str], seconds: float) -> float:
    """Send the load while a worker works; return the worker's CPU seconds a second."""
    cpu, began = worker.cpu, time.monotonic()
    worker.say(words[0])
    await load.window(seconds)
    worker.say(words[1])
    wall, cpu = time.monotonic() - began, worker.cpu - cpu
    load.side.seconds += wall
    load.side.cpu += cpu
    return rate(cpu, wall)


async def _back(pid: int, memory: Memory) -> None:
    """Wait until a process has no more memory than before, or not any longer."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) <= BACK_SECONDS:
        memory.after = resident(pid)
        if is_back(memory, memory.after):
            memory.back = passed
            return
        await asyncio.sleep(EVERY_SECONDS)


async def _account(
    seen: Round, loads: Sequence[Load], came: Mapping[str, float], taken: Sequence[str]
) -> None:
    """Find out what became of all jobs that were accepted; ``taken`` are the attacker's."""
    for load in loads:
        jobs = await settled(load.client, load.side.accepted)
        load.side.webhooks = delays(jobs, load.side.accepted, came)
        if load.side is seen.attack:
            seen.lost += lost(jobs, load.side.accepted, {"succeeded"})
    async with client_of(loads[0].client.url, key=ATTACKER) as client:
        seen.lost += lost(await settled(client, taken), taken, FINAL)
    seen.taken = len(seen.attack.accepted) + len(taken)


def _show(seen: Round, number: int, of: int) -> None:
    """Say how far it is, and how it looks."""
    attack, control = seen.attack, seen.control
    print(
        f"{seen.name}, {number} of {of}: /generate p95 {percentile(attack.images, 0.95):.2f} s,"
        f" control {percentile(control.images, 0.95):.2f} s; /health/live p99"
        f" {1000 * percentile(attack.probes, 0.99):.0f} ms; missing"
        f" {missing(attack.images)} images, {missing(attack.probes)} probes;"
        f" at most {seen.memory.most / MIB:.0f} MiB, {seen.memory.before / MIB:.0f} before",
        flush=True,
    )


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[ServiceProcess]:
    """Start a service around a fake engine with both keys in a file."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    keys = folder / "keys"
    await asyncio.to_thread(keys.write_text, KEYS, encoding="utf-8")
    await asyncio.to_thread(keys.chmod, 0o600)
    module = "tests.drills.hostile.service"
    async with service_in(folder, module=module, **LIMITS, API_KEYS_FILE=keys) as service:
        await service.start()
        yield service


@asynccontextmanager
async def _silent_hosts() -> AsyncIterator[list[str]]:
    """Listen at many addresses, accept everything and answer nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(4096):
                pass
        writer.close()

    async with AsyncExitStack() as stack:
        hosts = []
        for number in range(1, SILENT_HOSTS + 1):
            server = await stack.enter_async_context(
                await asyncio.start_server(listen, f"127.0.1.{number}", 0)
            )
            host, port = server.sockets[0].getsockname()
            hosts.append(f"{host}:{port}")
        yield hosts
