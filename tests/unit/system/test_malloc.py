"""Memory that is free in the heap goes back, and collections skip what the start has made."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.system import malloc

ROOT = Path(__file__).parents[3]


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(malloc.MALLOC_TRIM is None, reason="only glibc keeps holes in its heap")
def test_holes_go_back_to_the_system():
    """Small blocks that stay keep the large ones around them no longer."""
    # Below glibc's smallest threshold for mappings of their own, so that all come from the heap.
    blocks = [bytearray(b"x") * 65536 for _ in range(2000)]
    kept = blocks[::100]
    full = resident()
    del blocks
    malloc.trim()

    assert full - resident() > 100 * 2**20
    assert len(kept) == 20


@pytest.mark.skipif(malloc.MALLOPT is None, reason="only glibc has heaps by thread")
def test_threads_share_their_heaps():
    """However many there are: glibc itself counts the heaps."""
    code = """
import ctypes, sys, threading
from service.system import malloc
if sys.argv[1:]:
    malloc.share_arenas()
gate = threading.Barrier(7)
def work():
    block = ctypes.CDLL(None).malloc(100_000)
    gate.wait(); gate.wait()
for _ in range(6):
    threading.Thread(target=work).start()
gate.wait()
out = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdout")
ctypes.CDLL(None).malloc_info(0, out)
ctypes.CDLL(None).fflush(None)
gate.wait()
"""

    def heaps(*words):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.count("<heap nr=")

    assert heaps("shared") <= malloc.ARENAS < heaps()


SERVICE = """
import atexit, gc, sys
from service import __main__
from service.cli import preflight
from service.engine.process import parent
from tests.support.simulation.fake_engine import FakeEngine
parent.ProcessEngine = lambda config: FakeEngine()
preflight.demand_packages = lambda: None
atexit.register(lambda: print("left to collections", len(gc.get_objects()), flush=True))
sys.exit(__main__.main(["serve"]))
"""


def test_a_started_service_is_left_out_of_collections(tmp_path):
    """What is left to look at is what one start and its end have made since."""
    settings = {"DATA_DIR": str(tmp_path), "API_PORT": "0", "LOG_FORMAT": "json", "DEVICE": "cpu"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as service:
        assert service.stdout is not None
        said = []
        for line in service.stdout:
            said.append(line)
            if "service_listening" in line:
                service.terminate()
    assert service.returncode == 0, said
    assert int(said[-1].removeprefix("left to collections ")) < 20_000, said[-1]


@pytest.fixture
def trimmed(monkeypatch):
    """Count in place of trimming."""
    calls: list[str] = []
    monkeypatch.setattr(malloc, "trim", lambda: calls.append("trimmed"))
    return calls


def test_a_busy_process_is_tidied_seldom(trimmed):
    """Once in a while, however often it is asked; an idle one whenever it is asked."""
    often = malloc.Housekeeping(every_seconds=3600)
    often.tidy(idle=False)
    assert trimmed == []
    often.tidy(idle=True)
    assert len(trimmed) == 1
    always = malloc.Housekeeping(every_seconds=0)
    always.tidy(idle=False)
    always.tidy(idle=False)
    assert len(trimmed) == 3


async def test_a_service_is_tidied_until_it_ends(monkeypatch):
    """Again and again, beside the event loop."""
    loop, thrice, count = asyncio.get_running_loop(), asyncio.Event(), itertools.count(1)

    def trim():
        if next(count) == 3:
            loop.call_soon_threadsafe(thrice.set)

    monkeypatch.setattr(malloc, "trim", trim)
    task = asyncio.create_task(malloc.keep_trimmed(0))
    await asyncio.wait_for(thrice.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
