"""The GPU, read again and again: what is known while it works, breaks, hangs and comes back."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pynvml
import pytest
from structlog.testing import capture_logs

from service.gpu import sampler as gpu
from service.gpu import state as watched
from service.gpu.nvml import GpuReading
from service.gpu.sampler import BACKOFF_SECONDS, GpuSampler
from service.gpu.state import GpuState
from tests.nvml.driver import Driver
from tests.unit.gpu.sampling import UUID, Pauses, nothing, quick, states, told

READING = GpuReading(uuid=UUID, name="Some GPU", memory_used=3, memory_total=5)
UNKNOWN = pynvml.NVML_ERROR_UNKNOWN
LOST = pynvml.NVML_ERROR_GPU_IS_LOST
PROGRAM = """
import dataclasses, json, sys
from service.gpu.sampler import GpuSampler
sampler = GpuSampler(sys.argv[1])
sampler.start()
assert sampler.wait_for_reading(30)
print(json.dumps([dataclasses.asdict(reading) for reading in sampler.readings]))
sampler.stop()
"""


def failing(monkeypatch, *answers: int | None) -> GpuSampler:
    """Let each try to read fail with that code; None is a try that works."""
    left = list(answers)

    def read(_: str) -> GpuReading:
        code = left.pop(0)
        if code is None:
            return READING
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(gpu, "driver", contextlib.nullcontext)
    monkeypatch.setattr(watched, "read", read)
    return quick()


@pytest.mark.usefixtures("card")
def test_a_gpu_that_is_read_is_known_with_how_and_when():
    """The reading, and that it worked."""
    sampler = quick()
    (state,) = states(sampler)
    assert state.reading is not None
    assert state.reading.memory_total == 6 * 2**30
    assert (state.up, state.lost, state.uuid) == (True, False, UUID)
    assert state.succeeded_at
    assert sampler.duration
    assert state.xids


def test_a_reading_follows_the_sensors(card):
    """Each is made anew."""
    sampled = states(
        quick(),
        lambda: card.set(temperature=97),
        lambda: card.set(unsupported="temperature"),
    )
    assert [s.reading and s.reading.temperature for s in sampled] == [55, 97, None]


def test_a_gpu_that_is_lost_has_no_reading_until_it_is_back(card):
    """The last good figures would be a lie; what is said of it keeps its name."""
    with capture_logs() as lines:
        sampled = states(
            quick(),
            lambda: card.set(lost=1),
            nothing,
            lambda: card.set(lost=None),
            nothing,
        )
    assert told(sampled) == [(True, False), (False, True), (False, True), *[(True, False)] * 2]
    assert [state.reading is not None for state in sampled] == [True, False, False, True, True]
    assert {state.uuid for state in sampled} == {UUID}
    expected = ["gpu_reading_failed", "gpu_reading_resumed"]
    assert expected == [line["event"] for line in lines]


def test_the_fault_that_took_the_gpu_away_is_counted(card):
    """It stays known while there is no reading, and when the GPU is back."""
    sampled = states(
        quick(),
        lambda: (card.report_fault(79), card.set(lost=1)),
        lambda: card.set(lost=None),
    )
    assert [state.xids and state.xids["79"] for state in sampled] == [0, 1, 1]
    assert [state.xid_at > 0 for state in sampled] == [False, True, True]


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    ],
)
def test_a_gpu_that_was_there_is_lost_when_the_driver_says_so(monkeypatch, code):
    """An operator is needed."""
    assert told(states(failing(monkeypatch, None, code), nothing)) == [(True, False), (False, True)]


def test_a_gpu_that_is_no_longer_listed_is_lost(card):
    """One device fewer, and no error."""
    sampled = states(
        quick(),
        lambda: card.set(gpus=0),
        lambda: card.set(gpus=1),
    )
    assert told(sampled) == [(True, False), (False, True), (True, False)]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_TIMEOUT, pynvml.NVML_ERROR_MEMORY])
def test_other_errors_do_not_mean_that_the_gpu_is_gone(monkeypatch, code):
    """Reading is broken; of the GPU nothing is known."""
    sampler = failing(monkeypatch, None, code, code, None)
    sampled = states(sampler, nothing, nothing, nothing)
    assert told(sampled) == [(True, False), (False, False), (False, False), (True, False)]


def test_unknown_said_twice_means_that_the_gpu_is_gone(monkeypatch):
    """Once may be a bad moment; a driver opened anew would know."""
    sampler = failing(monkeypatch, None, UNKNOWN, None, UNKNOWN, UNKNOWN, None)
    sampled = states(sampler, *[nothing] * 5)
    working, broken, lost = (True, False), (False, False), (False, True)
    assert told(sampled) == [working, broken, working, broken, lost, working]


def test_a_lost_gpu_stays_lost_whatever_the_next_error_is(monkeypatch):
    """The driver may not find the words again."""
    sampler = failing(monkeypatch, None, LOST, pynvml.NVML_ERROR_TIMEOUT)
    assert told(states(sampler, nothing, nothing))[1:] == [(False, True), (False, True)]


def test_a_driver_that_was_closed_under_us_is_opened_again(monkeypatch):
    """Its handles are void, and the GPU is not."""
    opened: list[bool] = []

    @contextlib.contextmanager
    def driver():
        opened.append(True)
        yield

    sampler = failing(monkeypatch, None, pynvml.NVML_ERROR_UNINITIALIZED, None)
    monkeypatch.setattr(gpu, "driver", driver)
    sampled = states(sampler, nothing, nothing)
    assert told(sampled) == [(True, False), (False, False), (True, False)]
    assert len(opened) == 2


def test_a_gpu_that_never_answered_is_broken_and_not_lost(card):
    """Nothing says that it was there."""
    card.set(lost=1)
    (state,) = states(quick())
    assert (state.up, state.lost, state.uuid) == (False, False, None)


def test_attempts_become_fewer_until_one_works(monkeypatch):
    """A broken driver is not asked all the time, nor for ever less."""
    sampler = failing(monkeypatch, *[LOST] * 5)
    sampler._interval = 5
    states(sampler, *[nothing] * 4)
    assert isinstance(sampler._stop, Pauses)
    assert sampler._stop.seconds == [5, 10, 20, BACKOFF_SECONDS, BACKOFF_SECONDS]
    sampler = failing(monkeypatch, LOST, LOST, None, LOST, LOST)
    states(sampler, *[nothing] * 4)
    assert isinstance(sampler._stop, Pauses)
    failures = [0.001, 0.002, 0.001, 0.002]
    assert failures == [pause for pause in sampler._stop.seconds if pause in failures]


def test_a_failure_that_lasts_is_logged_once(monkeypatch):
    """Every five seconds for a weekend would hide the rest."""
    with capture_logs() as lines:
        sampler = failing(monkeypatch, LOST, LOST, LOST, UNKNOWN, None, LOST)
        states(sampler, *[nothing] * 5)
    events = [line["event"] for line in lines]
    assert events == [*["gpu_reading_failed"] * 2, "gpu_reading_resumed", "gpu_reading_failed"]


@pytest.mark.parametrize(
    "code",
    [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, 28, pynvml.NVML_ERROR_NOT_FOUND],
)
def test_where_there_never_was_a_gpu_nothing_is_known(card, code):
    """A host that has the driver's library and no GPU: no alert; asked again, logged once."""
    card.set(init=code)
    with capture_logs() as lines:
        sampled = states(quick(), nothing)
    assert sampled == [GpuState(), GpuState()]
    assert [line["event"] for line in lines] == ["gpu_not_found"]


def test_a_gpu_that_appears_late_is_read(card):
    """The driver may load after the service."""
    card.set(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    sampled = states(quick(), lambda: card.set(init=None))
    assert [state.up for state in sampled] == [None, True]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("devices", ["", "-1", " "])
def test_a_service_without_a_device_asks_no_driver(devices):
    """``DEVICE=cpu`` on a host with a GPU."""
    sampler = GpuSampler(devices)
    sampler.start()
    assert sampler.wait_for_reading(0)
    assert (sampler.states, sampler._thread) == ((), None)
    sampler.stop()


class Hanging:
    """A driver that works until it is told to hang."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, _: str) -> GpuReading:
        if self.hangs:
            self.entered.set()
            assert self.release.wait(30)
        return READING


def test_a_reading_expires_when_the_driver_hangs(monkeypatch):
    """Then reading is broken, though nothing has failed; it works when the driver goes on."""
    now, read = [0.0], Hanging(hangs=False)
    monkeypatch.setattr(gpu, "driver", contextlib.nullcontext)
    monkeypatch.setattr(watched, "read", read)
    sampler = GpuSampler("0", interval=0.01, clock=lambda: now[0])
    sampler.start()
    assert sampler.wait_for_reading(30)
    read.hangs = True
    assert read.entered.wait(30)
    assert told(list(sampler.states)) == [(True, False)]
    now[0] += 1
    (state,) = sampler.states
    assert (state.up, state.reading, sampler.readings) == (False, None, ())
    assert (state.uuid, state.lost) == (UUID, False)
    read.hangs = False
    with capture_logs() as lines:
        sampler._tried.clear()
        read.release.set()
        assert sampler.wait_for_reading(30)
    assert told(list(sampler.states)) == [(True, False)]
    assert lines == []
    sampler.stop()


def test_a_driver_that_hangs_from_the_start_is_broken(monkeypatch):
    """There is one, for it does not say that there is none."""
    now, read = [0.0], Hanging(hangs=True)
    monkeypatch.setattr(gpu, "driver", contextlib.nullcontext)
    monkeypatch.setattr(watched, "read", read)
    sampler = GpuSampler("0", interval=0.01, clock=lambda: now[0])
    sampler.start()
    assert read.entered.wait(30)
    assert told(list(sampler.states)) == [(None, False)]
    now[0] += 1
    assert told(list(sampler.states)) == [(False, False)]
    read.release.set()
    sampler.stop()


@pytest.mark.usefixtures("card")
def test_a_sampler_that_was_stopped_knows_nothing():
    """A figure after the end would be of another time."""
    sampler = quick()
    sampler.start()
    assert sampler.wait_for_reading(30)
    assert told(list(sampler.states)) == [(True, False)]
    sampler.stop()
    assert (sampler.readings, sampler.states) == ((), (GpuState(),))
    assert not any(thread.name == "gpu-sampler" for thread in threading.enumerate())


def sample(visible_devices: str, environment: dict[str, str]) -> tuple[list[Any], str]:
    """Read in a process of its own, which loads the library; return the readings and the log."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, visible_devices],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *log, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(log)


def test_the_driver_is_found_where_the_system_keeps_its_libraries(nvml_library, tmp_path):
    """Nothing but the name of the library is known beforehand."""
    driver = Driver(tmp_path, nvml_library, name="Some GPU")
    (reading,), _ = sample("0", driver.environment)
    names = {field.name for field in dataclasses.fields(GpuReading)}
    assert (set(reading), reading["name"]) == (names, "Some GPU")


def test_without_a_driver_there_is_no_reading(tmp_path: Path):
    """A service on a CPU starts all the same."""
    (tmp_path / "libnvidia-ml.so.1").write_text("this is no library")
    readings, log = sample("0", {"LD_LIBRARY_PATH": str(tmp_path)})
    assert readings == []
    assert "gpu_not_found" in log
