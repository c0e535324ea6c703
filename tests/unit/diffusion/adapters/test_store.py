"""The store of adapters: loading on a thread, budgets, eviction."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.core.capacity import AdapterPlace
from service.core.events import (
    JobCancelled,
    JobFailed,
    JobFinished,
    LoopEvent,
    OutOfMemoryHit,
    Stepped,
)
from service.core.spec import Adapter, GenerationSpec
from service.diffusion.adapters import reading
from service.diffusion.adapters.cache import AdapterMemory, memory_of
from service.diffusion.adapters.modules import Modules
from service.diffusion.adapters.reading import Loaded
from service.diffusion.adapters.store import AdapterStore, Lease, store_of
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop
from service.models.adapters.catalog import AdapterCatalog, Entry
from service.models.adapters.names import Part
from tests.support.models import adapter_files
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

REQUEST = GenerationSpec(prompt="a cat", width=32, height=32, steps=3, seed=5)


def wanted(*names: str) -> tuple[Adapter, ...]:
    """Return adapters at full weight."""
    return tuple(Adapter(name=name, weight=1.0, text_weight=1.0) for name in names)


@pytest.fixture
def loras(sd: Model, tmp_path: Path) -> Path:
    """Return a folder with four LoRA files of one size."""
    for seed, name in enumerate("abcd"):
        adapter_files.lora(
            tmp_path / f"{name}.safetensors", sd.family.pipeline, {"unet": ("to_q",)}, seed=seed
        )
    return tmp_path


def room_for(size: int) -> AdapterMemory:
    """Return empty host memory for adapters of so many bytes."""
    return memory_of(host_budget=size, device_budget=0)


def loaded(store: AdapterStore, *names: str) -> Lease:
    """Ask for adapters, and wait until they are there or cannot be."""
    lease = store.ask(wanted(*names))
    while store.loading:
        store.rest(10)
        store.pump()
    store.pump()
    return lease


@pytest.fixture
def size(sd: Model, loras: Path) -> int:
    """Return the bytes of one of the files in memory."""
    return loaded(store_of(sd, catalog=AdapterCatalog(loras)), "a").loaded[0].size


def test_adapters_come_in_the_order_of_the_request(sd: Model, loras: Path) -> None:
    """Whatever was loaded first."""
    store = store_of(sd, catalog=AdapterCatalog(loras))
    loaded(store, "b")
    lease = loaded(store, "c", "a", "b")
    assert [each.name for each in lease.loaded] == ["c", "a", "b"]
    news = store.news()
    assert news is not None
    assert (len(news.load_seconds), news.failures, news.evictions) == (3, 0, 0)
    assert news.held == {AdapterPlace.HOST: sum(each.size for each in lease.loaded)}
    assert store.news() is None


def test_what_was_unused_for_longest_goes_first(sd: Model, loras: Path, size: int) -> None:
    """The budget holds two: the third takes the place of the one that nobody uses."""
    store = store_of(sd, catalog=AdapterCatalog(loras), memory=room_for(2 * size))
    for name in "ab":
        store.give_back(loaded(store, name))
    kept = loaded(store, "a")
    store.give_back(loaded(store, "c"))
    news = store.news()
    assert news is not None
    assert (len(news.load_seconds), news.evictions) == (3, 1)
    assert store.memory.held == {AdapterPlace.HOST: 2 * size}
    store.give_back(kept)
    assert loaded(store, "a").ready
    assert store.news() is None


def test_a_job_waits_for_room_and_nobody_overtakes_it(sd: Model, loras: Path, size: int) -> None:
    """Adapters in use stay; what came later waits, too, so that the first one has its turn."""
    store = store_of(sd, catalog=AdapterCatalog(loras), memory=room_for(2 * size))
    first = loaded(store, "a", "b")
    second = loaded(store, "c", "d")
    third = store.ask(wanted("a"))
    store.pump()
    assert (first.ready, second.ready, third.ready) == (True, False, False)
    store.give_back(first)
    store.pump()
    assert second.ready
    assert not third.ready
    store.give_back(second)
    assert loaded(store, "a").ready


def test_models_share_one_budget(sd: Model, loras: Path, size: int) -> None:
    """What one model's jobs use no more gives way to another's; what was made of it is freed."""
    memory = room_for(2 * size)
    catalog = AdapterCatalog(loras)
    one, two = (store_of(sd, catalog=catalog, memory=memory) for _ in range(2))
    used = loaded(one, "a", "b")
    with one.on_rows([used.denoiser]):
        stacks = one._rows[Part.UNET]
        assert stacks._set == used.loaded
    one.give_back(used)
    theirs = loaded(two, "a")
    assert memory.held == {AdapterPlace.HOST: 2 * size}
    assert stacks._set == ()
    news = [store.news() for store in (one, two)]
    assert [each and each.evictions for each in news] == [1, 0]
    assert theirs.loaded[0] not in used.loaded
    one.close()
    assert memory.held == {AdapterPlace.HOST: size}


def test_a_model_that_waits_for_room_is_overtaken_by_no_other(
    sd: Model, loras: Path, size: int
) -> None:
    """Else the jobs of one could keep its adapters in use for ever."""
    memory = room_for(2 * size)
    catalog = AdapterCatalog(loras)
    one, two = (store_of(sd, catalog=catalog, memory=memory) for _ in range(2))
    used = loaded(one, "a", "b")
    waits = loaded(two, "c")
    late = loaded(one, "a")
    assert (waits.ready, late.ready) == (False, False)
    one.give_back(used)
    two.pump()
    one.pump()
    assert (waits.ready, late.ready) == (True, True)
    stuck = loaded(one, "a", "b")
    assert not stuck.ready
    one.give_back(stuck)
    assert memory.host.first is None


def test_a_job_that_gives_up_its_wait_lets_other_models_go_on(
    sd: Model, loras: Path, size: int
) -> None:
    """So does a model that leaves."""
    memory = room_for(size)
    one, two = (store_of(sd, catalog=AdapterCatalog(loras), memory=memory) for _ in range(2))
    used = loaded(one, "a")
    for leaves in (False, True):
        waits = loaded(two, "c")
        assert not loaded(one, "a").ready
        if leaves:
            two.close()
        else:
            two.give_back(waits)
        one.pump()
        assert not one.waiting
    one.give_back(used)


def test_more_than_the_budget_is_refused(sd: Model, loras: Path, size: int) -> None:
    """No waiting would help; the line names the setting."""
    store = store_of(sd, catalog=AdapterCatalog(loras), memory=room_for(2 * size))
    lease = loaded(store, "a", "b", "c")
    assert lease.error is not None
    assert "LORA_HOST_GB allows" in lease.error.detail
    assert not store.waiting


def test_unknown_and_unfit_adapters_are_errors(sd: Model, loras: Path) -> None:
    """Each in one line, and the next request is served."""
    store = store_of(sd, catalog=AdapterCatalog(loras))
    unknown = loaded(store, "none")
    assert unknown.error is not None
    assert "There are: a, b, c, d." in unknown.error.detail
    torch.manual_seed(0)
    layer = {"x": torch.nn.Linear(7, 9)}
    fake = type("Fake", (), {"unet": torch.nn.ModuleDict(layer)})()
    adapter_files.lora(loras / "other.safetensors", fake, {"unet": ("x",)})
    other = loaded(store, "other")
    assert other.error is not None
    assert "modules that the model does not have: unet.x" in other.error.detail
    assert loaded(store, "a").ready


def test_a_file_for_wider_texts_does_not_fit(sd: Model, loras: Path) -> None:
    """The shapes are compared before anything is used."""
    tensors = load_file(loras / "a.safetensors")
    key = next(name for name in tensors if name.endswith("lora_down.weight"))
    tensors[key] = torch.zeros(4, 1024)
    save_file(tensors, loras / "wide.safetensors")
    lease = loaded(store_of(sd, catalog=AdapterCatalog(loras)), "wide")
    assert lease.error is not None
    assert "wide.safetensors does not fit the model" in lease.error.detail
    assert "4x1024 instead of 4x" in lease.error.detail


def test_no_numbers_are_refused(sd: Model, loras: Path) -> None:
    """A damaged file would make black images of every row that uses it."""
    tensors = load_file(loras / "a.safetensors")
    key = next(name for name in tensors if name.endswith("lora_up.weight"))
    tensors[key][0, 0] = torch.nan
    save_file(tensors, loras / "broken.safetensors")
    lease = loaded(store_of(sd, catalog=AdapterCatalog(loras)), "broken")
    assert lease.error is not None
    assert "holds NaN or infinite values" in lease.error.detail


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Hold up every load until the test calls this."""
    gate = threading.Event()

    def slow(entry: Entry, modules: Modules) -> Loaded:
        gate.wait(60)
        return reading.read(entry, modules)

    monkeypatch.setattr("service.diffusion.adapters.store.read", slow)
    yield gate.set
    gate.set()


def test_others_step_on_while_an_adapter_is_loaded(
    sd: Model, loras: Path, let_go: Callable[[], None]
) -> None:
    """A job that needs a file from the disk delays nobody, and then draws, too."""
    stages: list[str] = []
    loop = StepLoop(
        sd,
        batch_limit=4,
        adapters=store_of(sd, catalog=AdapterCatalog(loras)),
        fault=lambda stage, _images: stages.append(stage),
    )

    loop.add("with", replace(REQUEST, adapters=wanted("a")))
    loop.add("without", REQUEST)
    found: list[LoopEvent] = []
    while not of(JobFinished, found):
        found += loop.step()
    assert {name for each in of(Stepped, found) for name in each.progress} == {"without"}
    assert loop.busy
    assert loop.step() == []
    assert stages[-1] == "load"
    let_go()
    assert [each.job_id for each in of(JobFinished, drained(loop))] == ["with"]


def test_a_job_that_waits_for_its_adapters_can_be_cancelled(
    sd: Model, loras: Path, let_go: Callable[[], None]
) -> None:
    """It leaves at once; what was loaded for it stays for others."""
    loop = StepLoop(sd, batch_limit=4, adapters=store_of(sd, catalog=AdapterCatalog(loras)))
    loop.add("with", replace(REQUEST, adapters=wanted("a")))
    loop.cancel("with")
    assert [type(each) for each in drained(loop)] == [JobCancelled]
    assert not loop.adapters.waiting
    let_go()


def test_an_adapter_that_cannot_be_used_fails_its_job_alone(sd: Model, loras: Path) -> None:
    """The others of the batch draw."""
    loop = StepLoop(sd, batch_limit=4, adapters=store_of(sd, catalog=AdapterCatalog(loras)))
    loop.add("bad", replace(REQUEST, adapters=wanted("none")))
    loop.add("good", replace(REQUEST, adapters=wanted("a")))
    found = drained(loop)
    assert [(e.job_id, e.code) for e in of(JobFailed, found)] == [("bad", "adapter_unsuitable")]
    assert [each.job_id for each in of(JobFinished, found)] == ["good"]


def test_adapters_that_nobody_uses_leave_when_memory_runs_out(sd: Model, loras: Path) -> None:
    """Before anything that costs time is tried; those in use stay, and the image is made."""
    store = store_of(sd, catalog=AdapterCatalog(loras))
    store.give_back(loaded(store, "a", "b"))
    fault = raising(("denoise", 1, 1), error=no_memory)
    loop = StepLoop(sd, batch_limit=4, adapters=store, fault=fault)
    loop.add("with", replace(REQUEST, adapters=wanted("a")))
    found = drained(loop)
    assert [each.rung for each in of(OutOfMemoryHit, found)] == ["free_cache"]
    assert [each.job_id for each in of(JobFinished, found)] == ["with"]
    news = store.news()
    assert news is not None
    assert news.evictions == 1


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"emb_params": torch.zeros(2, 31)}, "has vectors of 31 numbers, and the model's have 32"),
        (
            {"clip_l": torch.zeros(1, 32), "clip_g": torch.zeros(1, 32)},
            "toy is made for sdxl, and the model is of the family sd; use one of that family",
        ),
        ({"emb_params": torch.full((1, 32), torch.nan)}, "holds NaN or infinite values"),
    ],
)
def test_an_embedding_that_does_not_fit(
    sd: Model, tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    """The one job that names it ends with a line that says why."""
    save_file(tensors, tmp_path / "toy.safetensors")
    loop = StepLoop(sd, batch_limit=2, adapters=store_of(sd, catalog=AdapterCatalog(tmp_path)))
    loop.add("a", replace(REQUEST, prompt="a <toy>"))
    loop.add("b", REQUEST)

    failed = next(each for each in drained(loop) if isinstance(each, JobFailed))

    assert (failed.job_id, failed.code) == ("a", "adapter_unsuitable")
    assert words in failed.detail


def test_an_embedding_is_held_and_evicted_as_an_adapter(sd: Model, tmp_path: Path) -> None:
    """It counts in the same budget and the same figures."""
    save_file({"emb_params": torch.zeros(2, 32)}, tmp_path / "toy.safetensors")
    store = store_of(sd, catalog=AdapterCatalog(tmp_path))
    lease = store.ask((), {"a <toy>"})
    while store.loading:
        store.rest(10)
    store.pump()

    assert [each.name for each in lease.words] == ["toy"]
    assert store.memory.held == {AdapterPlace.HOST: 2 * 32 * 4}
    store.give_back(lease)
    store.release_memory()
    news = store.news()
    assert news is not None
    assert (len(news.load_seconds), news.evictions) == (1, 1)
    assert store.memory.held == {AdapterPlace.HOST: 0}
