"""The memory stress test works: it sees growth and leaks, and a short one leaves nothing behind."""

import json
import mmap
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from service.core.sampler import Sampler
from tests.drills.stress.meter import PROC, Held, Sample, held
from tests.drills.stress.polite import POLITE, SIZES, orders
from tests.drills.stress.rude import Rudeness
from tests.drills.stress.verdict import COUNTED, judge, leaks, theil_sen

ROOT = Path(__file__).parents[2]
MIB = 2**20
LIMIT = 32 * 1024
"""Bytes per generation, as the script has it by default."""

LINUX = pytest.mark.skipif(
    not (PROC / "self" / "smaps_rollup").exists(), reason="only Linux says what a process holds"
)

HELD = Held(anonymous=0, rss=0, pss=0, uss=0, files=16, sockets=5, threads=8)
SAMPLE = Sample(
    seconds=0.0,
    generations=0,
    phase="steady",
    resting=True,
    service=HELD,
    engine=HELD,
    vram={},
    store_bytes=0,
    results_bytes=0,
)


def series(memory, *, growth=0.0, noise=0.0):
    """Return the rests of 500 generations: a warm-up, then so much growth per generation."""
    chance = random.Random(1)  # noqa: S311 - noise to repeat
    samples = []
    for number in range(26):
        warm = min(number, 5) * 40 * MIB
        size = round(memory + warm + growth * number * 20 + chance.uniform(-noise, noise))
        engine = replace(HELD, anonymous=size, rss=size + 100 * MIB, pss=size, uss=size)
        samples.append(replace(SAMPLE, generations=number * 20, engine=engine))
    return samples


def flat(samples):
    """Return whether all that counts is flat."""
    return all(each.flat for each in judge(samples, LIMIT) if each.judged)


def test_a_line_has_its_slope():
    """Of points on a line both ends of the interval are the slope, too."""
    slope = theil_sen([(x, 3.0 * x + 1) for x in range(0, 100, 10)])
    assert (slope.low, slope.middle, slope.high) == (3.0, 3.0, 3.0)


def test_a_few_wild_points_do_not_move_the_slope():
    """A fifth of the samples may be anything."""
    points = [(x, 1000.0 if x % 50 == 10 else 3.0 * x) for x in range(0, 200, 10)]
    assert theil_sen(points).middle == pytest.approx(3.0)


def test_too_few_points_have_no_slope():
    """Instead of a verdict there is an error."""
    with pytest.raises(ValueError, match="4 are needed"):
        theil_sen([(0, 0), (1, 1), (2, 2)])


def test_flat_memory_is_flat():
    """With a warm-up of 200 MiB in front, and with noise as in reality."""
    assert flat(series(300 * MIB))
    assert flat(series(300 * MIB, noise=2 * MIB))


@pytest.mark.parametrize("noise", [0, 2 * MIB])
def test_rising_memory_is_not_flat(noise):
    """The latents of one image of 512x512 in each generation are seen."""
    assert not flat(series(300 * MIB, growth=64 * 1024, noise=noise))


def test_what_is_uncertain_is_not_flat():
    """Where noise hides a slope, nobody is told that there is none."""
    assert not flat(series(300 * MIB, noise=100 * MIB))


def test_pss_is_shown_and_does_not_count():
    """It falls and rises with what else the machine runs."""
    samples = [
        replace(each, engine=replace(each.engine, pss=number * 50 * MIB))
        for number, each in enumerate(series(300 * MIB))
    ]
    assert flat(samples)
    assert not all(each.flat for each in judge(samples, LIMIT))


def test_gpu_memory_counts_where_there_is_some():
    """But for the peak of all times, which may rise late."""
    samples = [
        replace(each, vram={"allocated": 2e9, "peak": 2e9 + number * 1e8})
        for number, each in enumerate(series(300 * MIB))
    ]
    assert flat(samples)
    rising = [
        replace(each, vram={"allocated": 2e9 + each.generations * 1e6, "peak": 0})
        for each in samples
    ]
    assert not flat(rising)


@pytest.mark.parametrize("name", ["files", "threads"])
def test_a_leak_of_one_in_fifty_is_found(name):
    """Descriptors and threads are counted: what grows to the end is named."""
    samples = [
        replace(each, service=replace(HELD, **{name: 10 + each.generations // 50}))
        for each in series(0)
    ]
    assert any(name in each for each in leaks(samples))


def test_pools_that_fill_are_no_leak():
    """Threads that are started when they are first needed are there to stay."""
    samples = [
        replace(each, service=replace(HELD, threads=8 + min(each.generations // 20, 4)))
        for each in series(0)
    ]
    assert leaks(samples) == []


def test_orders_are_mixed_and_the_same_again():
    """Every size and sampler comes; one seed gives one sequence."""
    first, again = orders(1, SIZES, 4), orders(1, SIZES, 4)
    made = [next(first) for _ in range(200)]
    assert made == [next(again) for _ in made]
    assert {order.size for order in made} == {*SIZES}
    assert {order.body["sampler"] for order in made} == {*Sampler}
    assert {order.body["steps"] for order in made} == {1, 2, 3, 4}
    assert {order.body["num_images"] for order in made} == {1, 2, 3}


@LINUX
def test_the_kernel_tells_what_a_process_holds(tmp_path):
    """A block that was written to and an open file are seen."""
    before = held(os.getpid())
    # Asked of the kernel: a heap may have had that much unused.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 64 * MIB, private) as block, (tmp_path / "open").open("w"):
        block.write(b"x" * (64 * MIB))
        after = held(os.getpid())
    assert after.anonymous - before.anonymous >= 60 * MIB
    assert after.files == before.files + 1
    assert after.threads >= 1


@pytest.mark.long
@LINUX
def test_a_short_stress_leaves_nothing_behind(tmp_path):
    """Images come as ordered; who hangs up leaves no job, file, socket or thread."""
    given = ["--generations", "20", "--rounds", "5", "--steps", "2", "--sizes", "256x256,320x256"]
    # A warm-up of twenty generations says nothing about growth: the limit is none.
    limit = ["--limit", "1e9"]
    files = ["--report", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.memory_stress_test", *given, *limit, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["problems"] == []
    rude = Rudeness("http://127.0.0.1:1", 0)
    expected = {f"steady: {name}" for name in POLITE}
    expected |= {f"hang-up: {name}" for name in [*rude.ordering, *rude.idle]}
    assert expected <= set(report["done"])
    assert report["ends"]["disconnected"] > 0
    assert report["ends"]["succeeded"] >= 20
    assert report["samples"][-1]["generations"] >= 40
    for name in COUNTED:
        assert name in done.stdout
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
