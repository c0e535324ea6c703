"""Memory that is made scarce on purpose, what is told of it, and the machine that it is on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scripts.cards import here
from scripts.cards.suite import machine, shortage
from scripts.cards.suite.parts import Report, Task
from service.core.events import JobFailed, JobFinished, LoopEvent, OutOfMemoryHit
from service.core.stage import OomRung, Stage
from service.errors import GpuMissing

GIB, MIB = 2**30, 2**20


def hit(stage: str, rung: str) -> OutOfMemoryHit:
    return OutOfMemoryHit(stage=Stage(stage), batch_size=1, rung=OomRung(rung))


def test_a_case_tells_its_rungs_images_and_failures():
    """Rungs by stage in their order, each once; failed jobs by their code."""
    found: list[LoopEvent] = [
        *(hit("denoise", "free_cache"), hit("denoise", "split_batch")),
        *(hit("denoise", "free_cache"), hit("vae_decode", "vae_tiling")),
        JobFinished(job_id="a", epoch=1, images=()),
        JobFailed(job_id="b", epoch=1, code="out_of_memory", detail=""),
    ]
    assert shortage.row(found, 1.5, 1.0) == (
        *("denoise: free_cache, split_batch; vae_decode: vae_tiling", "1"),
        *("1 out_of_memory", "1.5", "the same image"),
    )
    assert shortage.fault(found, 1.0) == []


@pytest.mark.parametrize(
    ("after", "shown", "fault"),
    [
        (0.9995, "99.95 % within 1", []),
        (0.9, "90.00 % within 1", ["the normal request afterwards failed or differs"]),
        (None, "failed", ["the normal request afterwards failed or differs"]),
    ],
)
def test_a_request_afterwards_that_fails_or_differs_is_a_fault(
    after: float | None, shown: str, fault: list[str]
):
    """An image that is the same up to rounding is well."""
    found = [hit("denoise", "fail")]
    assert shortage.row(found, 1.5, after)[-1] == shown
    assert shortage.fault(found, after) == fault


def test_a_job_that_fails_for_another_reason_is_a_fault():
    """Memory that ran out must be told as that."""
    found = [JobFailed(job_id="b", epoch=1, code="generation_failed", detail="")]
    assert shortage.fault(found, 1.0) == ["a job failed with generation_failed"]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for a card of 80 GB of which 70 are free; its last 100 MiB cannot be had."""
    seen = SimpleNamespace(asked=[], shares=[])

    def empty(size: int, **_: object) -> str:
        seen.asked.append(size)
        if size > 70 * GIB - 100 * MIB:
            raise torch.OutOfMemoryError("no")
        return "ballast"

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 * GIB, 80 * GIB))
    total = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", seen.shares.append)
    return seen


def test_a_tensor_leaves_what_is_asked_for(card):
    """Or a little more, where the driver does not give the last of it."""
    with shortage.short(512, gpu=True):
        assert card.asked == [70 * GIB - 512 * MIB]
    card.asked.clear()
    with shortage.short(32, gpu=True):
        assert card.asked == [70 * GIB - (32 + slack) * MIB for slack in (0, 64, 256)]
    assert card.shares == []


def test_the_cap_is_lifted_whatever_happens(card):
    """Less than the model takes, and all of the card afterwards."""
    with pytest.raises(RuntimeError, match="lost"), shortage.short(shortage.CAP, gpu=True):
        raise RuntimeError("lost")
    assert card.shares == [0.5 / 80, 1.0]


def test_values_within_one_are_counted_both_ways():
    """One brighter and one darker are the same; two are not, and 255 is far from 0."""
    ours, theirs = np.array([10, 10, 10, 255], np.uint8), np.array([11, 9, 12, 0], np.uint8)
    assert shortage.within_one(ours, theirs) == 0.5


def task(**more: Any) -> Task:
    known = {"part": "machine", "model": "demo", "on_cpu": True, "vram": 6.0}
    return Task(**{**known, "seconds": 9.0, "folder": ".", **more})


def test_the_machine_tells_its_versions(monkeypatch):
    """The version of torch is its own word, which says what it was built for."""
    monkeypatch.setattr(here, "on_gpu", lambda _: False)
    told: list[Report] = []
    machine.run(task(), told.append)
    assert told[-1].figures["torch"] == torch.__version__
    assert told[-1].figures["device"] == "CPU"
    with pytest.raises(GpuMissing, match="--on-cpu"):
        machine.run(task(on_cpu=False), told.append)


def test_the_machine_tells_its_card(monkeypatch):
    """Name, memory and what kernels it runs."""
    known = SimpleNamespace(name="NVIDIA H200", total_memory=140 * GIB, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: known)
    rows = dict(machine.rows(gpu=True))
    assert (rows["device"], rows["VRAM"]) == ("NVIDIA H200", "140.0 GB")
    assert rows["compute capability"] == "9.0"


def test_packages_that_do_not_suit_are_told(tmp_path):
    """One that is missing, and one that is older than asked for; others are not named."""
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["nowhere-to-be-found>=1", "pytest>=1", "numpy>=99"]\n'
        "[project.optional-dependencies]\nengine = []\n",
        encoding="utf-8",
    )
    missing, old = machine.unmet(project)
    assert missing == "nowhere-to-be-found is missing."
    assert old == f"numpy {np.__version__} is not >=99, which the project asks for."


def test_the_random_model_is_built_once(monkeypatch, tmp_path):
    """Only it, and only if it is not there."""
    built: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "scripts.random_model.folder.build", lambda _shape, folder, **_: built.append(folder)
    )
    assert not machine.build_missing("demo")
    assert machine.build_missing(machine.MODEL)
    assert built == [Path(machine.MODEL)]
    Path(machine.MODEL).mkdir(parents=True)
    assert not machine.build_missing(machine.MODEL)
