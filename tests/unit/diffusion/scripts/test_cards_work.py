"""What a measuring process does: both contenders under one cap, with one image."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.benchmark.rows import row
from scripts.cards import plain, work
from scripts.cards.images import difference
from scripts.cards.measure import ENGINE, PIPELINE, Order
from service.diffusion import device
from service.models.source import Source


@pytest.fixture(autouse=True)
def _capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the parent process sets, and what an engine sets for itself."""
    settings = {
        "MODEL_ID": str(Path(work.__file__).parents[2] / "service" / "demo"),
        "VRAM_LIMIT_GB": "6",
        "LOG_LEVEL": "ERROR",
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def order(contender: str, folder: Path, **more: Any) -> Order:
    known = {"row": row("64x64/2"), "rounds": 1}
    return Order(contender=contender, folder=str(folder), **{**known, **more})


def test_both_contenders_are_bound_by_the_same_cap(monkeypatch, tmp_path):
    """Each asks for it before it loads anything, and both draw the same image."""
    limits: list[float] = []
    monkeypatch.setattr(device, "chosen_device", lambda *_, **__: torch.device("cpu"))
    for module in (device, plain):  # The engine's own lines, and those of the pipeline.
        monkeypatch.setattr(module, "limit_memory", lambda _, gigabytes: limits.append(gigabytes))
    for contender in (ENGINE, PIPELINE):
        (tmp_path / contender).mkdir()
        found = work.measure(order(contender, tmp_path / contender))
        assert found.failure == ""
        assert found.worked
        assert found.host > 0
    assert limits == [6.0, 6.0]
    gap = difference(tmp_path / ENGINE, tmp_path / PIPELINE)
    assert gap is not None
    assert gap.largest <= 1


def test_neither_contender_checks_its_images(monkeypatch, tmp_path):
    """A published model's safety checker takes time and VRAM, and the engine does without it."""
    model = tmp_path / "model"
    model.mkdir()
    demo = Path(work.__file__).parents[2] / "service" / "demo"
    for part in demo.iterdir():
        (model / part.name).symlink_to(part)
    index = json.loads((demo / "model_index.json").read_text(encoding="utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (model / "model_index.json").unlink()
    (model / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    monkeypatch.setenv("MODEL_ID", str(model))
    monkeypatch.setenv("VRAM_LIMIT_GB", "0")
    for contender in (ENGINE, PIPELINE):
        # Neither has its weights: who asked for them would fail.
        assert work.measure(order(contender, tmp_path)).failure == ""


def test_the_cap_leaves_what_cuda_takes_itself(monkeypatch):
    """Of 6 GB on a card of 12, torch may hold 5.4: a share of 0.45; without a cap, all."""
    shares: list[float] = []
    card = SimpleNamespace(total_memory=12 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share)
    )
    for gigabytes in (6.0, 24.0, 0.0):
        plain.limit_memory(torch.device("cuda:0"), gigabytes)
    plain.limit_memory(torch.device("cpu"), 6.0)
    assert shares == [pytest.approx(0.45), 1.0]


def test_half_precision_comes_from_such_files(tmp_path):
    """Only where there are some and it is computed in; a folder without them is read as it is."""
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    source = Source(id="m", path=tmp_path, version="1")
    assert plain.layout(source, half=True) == {}
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.fp16.safetensors").touch()
    assert plain.layout(source, half=True) == {"variant": "fp16"}
    assert plain.layout(source, half=False) == {}


def test_a_batch_is_measured_as_one(monkeypatch, tmp_path):
    """Its images share the time, and the first of them is the one that is alone elsewhere."""
    monkeypatch.setenv("VRAM_LIMIT_GB", "0")
    monkeypatch.setenv("MAX_CONCURRENT_REQUESTS", "2")
    images = {}
    for count in (1, 2):
        place_of = tmp_path / str(count)
        place_of.mkdir()
        found = work.measure(order(ENGINE, place_of, batch=count, rounds=2))
        assert len(found.seconds) == 2
        assert found.step_seconds > 0
        images[count] = place_of
    assert {path.name for path in images[2].iterdir()} == {"1.png", "2.png"}
    gap = difference(images[2], images[1])
    assert gap is not None
    assert gap.largest <= 1


@pytest.mark.parametrize("contender", [ENGINE, PIPELINE])
def test_memory_that_runs_out_is_a_result(contender, monkeypatch, tmp_path):
    """It says so in one line, with what torch said."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(device, "chosen_device", lambda *_, **__: torch.device("cpu"))
    monkeypatch.setattr(device if contender == ENGINE else plain, "limit_memory", fail)
    found = work.measure(order(contender, tmp_path))
    assert found.failure == "out of memory: CUDA out of memory. Tried to allocate 2 GiB."
    assert not found.worked


def test_a_setting_that_this_machine_has_not_is_a_result(monkeypatch, tmp_path):
    """Half precision on a CPU is refused with the service's own words."""
    monkeypatch.setenv("VRAM_LIMIT_GB", "0")
    monkeypatch.setenv("DTYPE", "float16")
    found = work.measure(order(ENGINE, tmp_path))
    assert found.failure == "DTYPE=float16: needs a GPU; a CPU computes in float32 or bfloat16."
