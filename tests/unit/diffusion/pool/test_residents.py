"""Which models stay in memory: budgets, eviction, parking."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Event

import pytest
import torch

from service.core.events import (
    JobFailed,
    JobFinished,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    Stepped,
    UnloadReason,
)
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.diffusion.pool import member
from service.diffusion.pool.member import HOST, Member
from service.diffusion.pool.residents import GIB, Said
from service.errors import GpuTooSmall
from tests.unit.diffusion.pool.conftest import OTHER_NAME, Machine
from tests.unit.diffusion.step_loops import of

REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3, seed=5)
MEMORY = UnloadReason.MEMORY
Make = Callable[..., Machine]


def gone(said: Iterable[object]) -> list[tuple[str, UnloadReason]]:
    return [(each.model_id, each.reason) for each in of(ModelUnloaded, said)]


def loaded(said: Iterable[object]) -> list[tuple[str, bool]]:
    return [(each.model_id, each.parked) for each in of(ModelLoaded, said)]


def resident(machine: Machine) -> ModelsResident:
    found: ModelsResident = of(ModelsResident, machine.pool.news())[-1]
    return found


def drawn(machine: Machine, **fields: str) -> RawImage:
    machine.pool.add("drawn", replace(REQUEST, **fields), 1)  # type: ignore[arg-type]
    (found,) = of(JobFinished, machine.rest())
    image: RawImage = found.images[0]
    return image


def test_the_budget_of_the_host_holds_where_models_compute_there(machine: Make) -> None:
    """A model alone may take more; next to others it evicts."""
    small = machine(host_budget=1)
    small.pool.load("sdxl")
    said = small.rest()
    assert (gone(said), loaded(said)) == ([("", MEMORY)], [("sdxl", False)])
    assert resident(small).host.keys() == {"sdxl"}


def test_the_least_valuable_gives_way(machine: Make) -> None:
    """Value is the seconds to load it by those that nobody used it."""
    three = machine()
    for name in ("lcm", "sdxl"):
        three.pool.load(name)
    three.rest()
    for name, seconds in (("", 9.0), ("lcm", 3.0), ("sdxl", 5.0)):
        three.residents.members[name].load_seconds = seconds
    three.residents._host_budget = sum(each.size for each in three.residents.members.values())
    three.pool.load("v_prediction")
    said = three.rest()
    assert (gone(said), loaded(said)) == ([("lcm", MEMORY)], [("v_prediction", False)])


def test_a_model_with_jobs_stays_until_they_are_done(machine: Make) -> None:
    """The load waits for it, whatever its value is."""
    small = machine(host_budget=1)
    small.pool.add("a", REQUEST, 1)
    small.pool.load("sdxl")
    kinds = [
        type(each)
        for each in small.rest()
        if isinstance(each, JobFinished | ModelUnloaded | ModelLoaded)
    ]
    assert kinds == [JobFinished, ModelUnloaded, ModelLoaded]
    assert small.opener.opened == ["", "sdxl"]


def test_memory_that_runs_out_in_a_load_evicts_and_tries_again(machine: Make) -> None:
    """Once for each model that gives way."""
    two = machine()
    two.opener.errors += [MemoryError("full")]
    two.pool.load("sdxl")
    said = two.rest()
    assert (gone(said), loaded(said)) == ([("", MEMORY)], [("sdxl", False)])


WAITS = [True, False, JobFinished, ModelUnloaded, True, ModelLoaded]
"""A load that begins, has to wait for a job, and begins again."""


def story(said: list[Said]) -> list[object]:
    """Return what became of a load and of those in its way; for ``ModelLoading`` its ``room``."""
    kinds = JobFinished | JobFailed | ModelFailed | ModelLoading | ModelUnloaded | ModelLoaded
    found = (each for each in said if isinstance(each, kinds))
    return [each.room if isinstance(each, ModelLoading) else type(each) for each in found]


def test_memory_that_runs_out_in_a_load_waits_for_those_with_jobs(machine: Make) -> None:
    """The service is told, so that it gives them no more; nothing is failed."""
    two = machine()
    two.opener.errors += [MemoryError("full")]
    two.pool.add("a", replace(REQUEST, steps=9), 1)
    two.pool.load("sdxl")
    assert story(two.rest()) == WAITS
    assert two.opener.opened == ["", "sdxl", "sdxl"]


def test_a_model_that_was_read_and_has_no_place_waits_for_those_with_jobs(machine: Make) -> None:
    """There was a place when reading began; what was read stays in host memory."""
    gpu = machine(gpu=True)
    gpu.opener.proceed.clear()
    gpu.pool.add("a", replace(REQUEST, steps=30), 1)
    gpu.pool.load("lcm")
    said = gpu.until(ModelLoading)
    gpu.total = gpu.size * 3 // 2
    gpu.opener.proceed.set()
    assert story(said + gpu.rest()) == WAITS
    assert gpu.opener.opened == ["", "lcm"]


def test_rows_go_on_while_an_idle_model_is_parked(
    machine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The move takes seconds on a GPU; a load of the model that leaves waits for its end."""
    gpu = machine(gpu=True)
    gpu.pool.load("lcm")
    gpu.rest()
    moves = Event()

    def move(_part: torch.nn.Module, _where: torch.device) -> None:
        assert moves.wait(30)

    monkeypatch.setattr(member, "move", move)
    gpu.pool.unload("", UnloadReason.IDLE)
    gpu.pool.add("a", replace(REQUEST, model="lcm"), 1)
    said = gpu.until(JobFinished)
    assert story(said) == [ModelUnloaded, JobFinished]
    assert (gpu.pool.busy, gpu.pool.loading, gpu.residents.parked) == (True, True, {})
    gpu.pool.load("")
    moves.set()
    assert loaded(gpu.rest()) == [("", True)]
    assert gpu.opener.opened == ["", "lcm"]


def test_an_idle_model_that_is_wanted_again_stays(machine: Make) -> None:
    """A load goes first, and by its end somebody may have asked for it."""
    gpu = machine(gpu=True)
    gpu.opener.proceed.clear()
    gpu.pool.load("lcm")
    gpu.until(ModelLoading)
    gpu.pool.unload("", UnloadReason.IDLE)
    gpu.pool.load("")
    gpu.opener.proceed.set()
    said = gpu.rest()
    assert (gone(said), sorted(loaded(said))) == ([], [("", False), ("lcm", False)])


def test_memory_of_the_host_that_runs_out_takes_parked_models(machine: Make) -> None:
    """While a model is read next to a GPU: those on it need not go."""
    gpu = machine(gpu=True)
    gpu.pool.load("lcm")
    gpu.rest()
    gpu.pool.unload("", UnloadReason.IDLE)
    gpu.rest()
    gpu.opener.errors += [MemoryError("full")]
    gpu.pool.load("v_prediction")
    said = gpu.rest()
    assert of(ModelUnloaded, said) == []
    assert loaded(said) == [("v_prediction", False)]
    assert gpu.residents.parked == {}


def test_memory_that_never_suffices_fails_the_load(machine: Make) -> None:
    """With the reason; whoever wants the default model again gets it."""
    two = machine()
    two.opener.errors += [MemoryError("full"), GpuTooSmall("It is too small.")]
    two.pool.load("sdxl")
    said = two.rest()
    (failed,) = of(ModelFailed, said)
    assert (failed.model_id, failed.code, failed.detail) == (
        "sdxl",
        "gpu_too_small",
        "It is too small.",
    )
    two.pool.load("")
    assert loaded(two.rest()) == [("", False)]


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_that_cannot_fit_evicts_nobody(machine: Make, gpu: bool) -> None:
    """Else every request for it would cost the others a reload."""
    small = machine(gpu=gpu)
    size = max(small.size, 100)
    small.total = size // 2 if gpu else size
    small.opener.sizes["lcm"] = 2 * size
    small.pool.load("lcm")
    said = small.rest()
    (failed,) = of(ModelFailed, said)
    assert (failed.code, gone(said)) == ("out_of_memory", [])
    assert ("GB, and there are" in failed.detail, list(small.residents.members)) == (True, [""])


def test_an_evicted_model_is_parked_next_to_a_gpu_and_comes_back(
    machine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its files, and draws the same; the device is the other's meanwhile."""
    where: dict[torch.nn.Module, torch.device] = {}
    monkeypatch.setattr(member, "move", where.__setitem__)

    def at(found: Member) -> set[torch.device]:
        return {where[part] for part in found._parts}

    gpu = machine(gpu=True)
    before = drawn(gpu)
    gpu.total = gpu.size * 3 // 2
    gpu.pool.load("lcm")
    said = gpu.rest()
    assert (gone(said), loaded(said)) == ([("", MEMORY)], [("lcm", False)])
    now = resident(gpu)
    assert (set(now.device), set(now.host)) == ({"lcm"}, {""})
    assert at(gpu.residents.parked[""]) == {HOST}

    gpu.pool.load("")
    said = gpu.rest()
    assert (gone(said), loaded(said)) == ([("lcm", MEMORY)], [("", True)])
    assert at(gpu.residents.members[""]) == {OTHER_NAME}
    assert drawn(gpu) == before
    assert gpu.opener.opened == ["", "lcm"]


@pytest.mark.parametrize(("budget", "kept"), [(0, set()), (1, {"lcm"})])
def test_the_budget_of_parked_models_holds(machine: Make, budget: int, kept: set[str]) -> None:
    """Of two that are parked the less valuable one goes."""
    gpu = machine(gpu=True)
    for name in ("lcm", "v_prediction"):
        gpu.pool.load(name)
    gpu.rest()
    gpu.residents._host_budget = budget * gpu.residents.members["lcm"].size
    gpu.residents.members[""].load_seconds = 1.0
    gpu.residents.members["lcm"].load_seconds = 60.0
    gpu.pool.unload("", UnloadReason.IDLE)
    gpu.pool.unload("lcm", UnloadReason.IDLE)
    gpu.rest()
    assert gpu.residents.parked.keys() == kept
    assert resident(gpu).device.keys() == {"v_prediction"}


def test_unloaded_on_request_a_model_leaves_both_memories(machine: Make) -> None:
    """One that is parked, too."""
    gpu = machine(gpu=True)
    assert resident(gpu).device.keys() == {""}
    gpu.pool.unload("", UnloadReason.IDLE)
    gpu.rest()
    assert gpu.residents.parked.keys() == {""}
    gpu.pool.unload("", UnloadReason.ASKED)
    assert (gpu.residents.members, gpu.residents.parked) == ({}, {})
    assert resident(gpu) == ModelsResident()


def test_an_image_that_needs_the_room_evicts_idle_models(machine: Make) -> None:
    """Before it is begun, where it is known what it takes."""
    two = machine()
    two.pool.load("sdxl")
    two.rest()
    loop = two.residents.members["sdxl"].loop
    capacity = loop.budget.capacity()
    assert capacity is not None
    need = max(capacity.need(64 * 64).values())
    loop.budget._available, loop.budget._read = need - 1, float("inf")
    two.pool.add("b", replace(REQUEST, model="sdxl"), 1)
    assert gone(two.rest()) == [("", MEMORY)]


def test_a_limit_of_6_gb_holds_while_clients_alternate(machine: Make) -> None:
    """Two models that fit next to each other and one that does not; nothing is lost."""
    names = ["", "lcm", "sdxl"]
    gpu = machine(gpu=True, host_budget=12 * GIB)
    gpu.opener.sizes = {"": 2 * GIB, "lcm": 2 * GIB, "sdxl": 5 * GIB}
    gpu.total, gpu.residents.members[""].size = 6 * GIB, 2 * GIB
    left = [(client, names[(client + n) % 3]) for n in range(3) for client in range(4)]
    done: dict[str, str] = {}
    while left or gpu.pool.busy:
        for client, name in [each for each in left if each[1] in gpu.residents.members]:
            left.remove((client, name))
            gpu.pool.add(f"{client}{name}", replace(REQUEST, model=name), 1)
        if left:
            gpu.pool.load(left[0][1])
        for said in gpu.pool.step():
            assert not isinstance(said, JobFailed | ModelFailed)
            if isinstance(said, Stepped):
                done |= dict.fromkeys(said.progress, said.model_id)
        assert sum(each.size for each in gpu.residents.members.values()) <= gpu.total
        assert sum(each.size for each in gpu.residents.parked.values()) <= 12 * GIB
    assert done == {f"{client}{name}": name for client in range(4) for name in names}
    assert sorted(gpu.opener.opened) == names
