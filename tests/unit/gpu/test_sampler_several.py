"""Several GPUs, read in one session: one that fails leaves the others."""

import contextlib

import pytest
from structlog.testing import capture_logs

from service.gpu import nvml
from service.gpu import sampler as gpu
from service.gpu.sampler import BACKOFF_SECONDS, GpuSampler
from service.gpu.state import GpuState
from tests.unit.gpu.sampling import UUID, Pauses, nothing, of_all, quick, told

SECOND_UUID = UUID[:-1] + "1"


def by_gpu(sampled: list[tuple[GpuState, ...]]) -> list[list[tuple[bool | None, bool]]]:
    return [told(list(each)) for each in zip(*sampled, strict=True)]


def test_every_gpu_that_is_named_is_read_in_one_session(card, monkeypatch):
    """Each by itself; the driver is opened once for all, and again for none."""
    opened: list[bool] = []

    @contextlib.contextmanager
    def counted():
        opened.append(True)
        with nvml.driver():
            yield

    monkeypatch.setattr(gpu, "driver", counted)
    card.set(gpus=3, **{"0.temperature": 40, "1.temperature": 50, "2.temperature": 60})
    sampler = quick("2, 0")
    of_all(sampler, nothing, nothing)
    assert [reading.temperature for reading in sampler.readings] == [60, 40]
    assert [state.uuid for state in sampler.states] == [UUID[:-1] + "2", UUID]
    assert opened == [True]


@pytest.mark.parametrize("lost", ["0", "1"])
def test_a_gpu_that_is_lost_leaves_the_others(card, lost):
    """Whichever it is, the other is read as before; the lost one is tried until it is back."""
    card.set(gpus=2)

    def back() -> None:
        card.set(**{f"{lost}.lost": None})

    sampler = quick("0,1")
    sampled = of_all(sampler, lambda: card.set(**{f"{lost}.lost": 1}), *[nothing] * 2, back, *MANY)
    rounds = by_gpu(sampled)
    other = rounds[1 - int(lost)]
    assert other == [(True, False)] * len(sampled)
    of_lost = rounds[int(lost)]
    assert of_lost[:4] == [(True, False), *[(False, True)] * 3]
    assert of_lost[-1] == (True, False)


MANY = [nothing] * 20
"""Rounds of a millisecond: longer than any pause before the driver is opened anew."""


def test_a_gpu_is_known_by_its_uuid_once_it_was_read(card):
    """When the first falls off the bus, the second gets its index."""
    card.set(gpus=2)

    def first_falls_off() -> None:
        card.set(gpus=1, **{"0.uuid": SECOND_UUID})

    sampled = of_all(quick("0,1"), first_falls_off, nothing)
    assert by_gpu(sampled) == [[(True, False), *[(False, True)] * 2], [(True, False)] * 3]
    assert [state.uuid for state in sampled[-1]] == [UUID, SECOND_UUID]


def test_when_every_gpu_fails_attempts_become_fewer(card):
    """There is none to read meanwhile."""
    card.set(gpus=2, lost=1)
    sampler = GpuSampler("0,1", interval=5, clock=lambda: 0.0)
    sampled = of_all(sampler, *[nothing] * 4)
    assert by_gpu(sampled) == [[(False, False)] * 5] * 2
    assert isinstance(sampler._stop, Pauses)
    assert sampler._stop.seconds == [5, 10, 20, BACKOFF_SECONDS, BACKOFF_SECONDS]


def test_a_gpu_that_is_named_and_not_there_is_no_fault(card):
    """Nothing is known of it; the one that is there is read."""
    card.set(gpus=1)
    with capture_logs() as lines:
        sampled = of_all(quick("0,5"), *[nothing] * 3)
    assert by_gpu(sampled) == [[(True, False)] * 4, [(None, False)] * 4]
    assert [line["gpu"] for line in lines if line["event"] == "gpu_not_found"] == ["5"]


def test_faults_are_counted_for_the_gpu_that_had_them(card):
    """Also while the other has none, and one of them is lost."""
    card.set(gpus=2)
    sampled = of_all(
        quick("0,1"),
        lambda: card.report_fault(31, "1.xids"),
        lambda: (card.report_fault(79, "0.xids"), card.set(**{"0.lost": 1})),
    )
    assert [[(state.xids or {}).get(xid) for xid in ("31", "79")] for state in sampled[-1]] == [
        [0, 1],
        [1, 0],
    ]
