"""What of a model is fetched from the hub, and what keeps it from being fetched."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from service.config.table import Config
from service.diffusion import device
from service.diffusion.load import load_model
from service.errors import DiskFull, HubUnreachable, ModelError
from service.models import catalog
from service.models.hub import pull
from service.models.hub.errors import explained
from service.models.hub.pull import RemoteFile
from service.models.source import Source

HUB = Source(id="org/name", path=None, version="org/name")


def rows(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path=path, size=1) for path in paths]


INDEX: dict[str, object] = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
}
HELD = rows(
    "model_index.json",
    "v1-5-pruned.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "safety_checker/model.safetensors",
)


@pytest.mark.parametrize(("half", "unet"), [(False, ""), (True, ".fp16")])
def test_only_what_loading_reads_is_fetched(half: bool, unet: str) -> None:
    """One number format, no pickles, no variants, no parts that the model does not use."""
    chosen = [row.path for row in pull.wanted(HELD, INDEX, half=half)]
    assert chosen == [
        "model_index.json",
        "unet/config.json",
        f"unet/diffusion_pytorch_model{unet}.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_each_part_is_fetched_in_its_own_format() -> None:
    """Where a UNet is there in shards of half precision only, the rest is as it is."""
    names = [f"unet/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    names += ["unet/diffusion_pytorch_model.safetensors.index.fp16.json"]
    there = rows(
        *names,
        "unet/diffusion_pytorch_model.bin.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/attention.py",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    )
    for half, vae in ((False, ""), (True, ".fp16")):
        chosen = {row.path for row in pull.wanted(there, INDEX, half=half)}
        assert chosen == {*names, f"vae/diffusion_pytorch_model{vae}.safetensors"}


def test_a_configuration_has_no_weights() -> None:
    """Nor the lists of their shards; pickles do not matter then."""
    there = rows("model_index.json", "unet/config.json", "unet/x.bin", "vae/config.json")
    there += rows("unet/diffusion_pytorch_model.safetensors.index.json")
    chosen = [row.path for row in pull.wanted(there, INDEX, half=False, configuration=True)]
    assert chosen == ["model_index.json", "unet/config.json", "vae/config.json"]


def test_pickles_alone_are_refused_before_they_are_fetched():
    """Gigabytes that would not be loaded stay where they are."""
    with pytest.raises(ModelError, match=r"unet has no \.safetensors file"):
        pull.wanted(rows("model_index.json", "unet/x.bin"), INDEX, half=False)


def test_a_disk_without_room_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    """With what is wanted, what is free, and how to make room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(DiskFull, match=r"needs 4\.0 GB more, and 1\.0 GB are free.*models remove"):
        pull._demand_room("org/name", [RemoteFile(path="x", size=2**32)], tmp_path)


def test_a_disk_that_fills_up_on_the_way_is_told(tmp_path):
    """The client's error is turned into the same line."""
    with (
        pytest.raises(DiskFull, match="the disk is full"),
        explained("org/name", tmp_path),
    ):
        raise OSError(28, "No space left on device")


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE forbids the download, and the message says how to bring the model here."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE=1 forbids downloading it\. Start once"):
        load_model(HUB, Config(model_cache_dir=tmp_path))


@pytest.fixture
def downloads(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[bool]:
    """Stand in for fetching: the tiny model; keeps whether half precision was asked for."""
    snapshot = shutil.copytree(folder("sd"), tmp_path / "451f4fe16113bff5")
    asked: list[bool] = []

    def fetch(name: str, _cache_dir: Path, *, half: bool) -> Source:
        asked.append(half)
        return Source(id=name, path=snapshot, version=catalog.hub_version(name, snapshot))

    monkeypatch.setattr(pull, "fetch", fetch)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return asked


def test_download(downloads: list[bool], tmp_path: Path) -> None:
    """A hub model that is not here is fetched, and named by its commit."""
    model = load_model(HUB, Config(model_cache_dir=tmp_path))

    assert model.info.version == "org/name@451f4fe"
    assert downloads == [False]


def test_download_for_a_gpu(
    downloads: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For half precision the half-sized files are asked for."""
    monkeypatch.setattr(device, "chosen_dtype", lambda *_: torch.float16)

    model = load_model(HUB, Config(model_cache_dir=tmp_path))

    assert model.info.dtype == "float16"
    assert downloads == [True]


def test_other_kinds_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model of another kind is refused before its gigabytes are fetched."""
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "FluxPipeline"}')
    monkeypatch.setattr(pull, "hf_hub_download", lambda *_, **__: str(index))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    with pytest.raises(ModelError, match="is a FluxPipeline"):
        load_model(HUB, Config(model_cache_dir=tmp_path))


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer is one line."""

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("We couldn't connect to the hub.\nmore")

    monkeypatch.setattr(pull, "hf_hub_download", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    with pytest.raises(HubUnreachable, match=r"does not answer \(We couldn't connect") as it:
        load_model(HUB, Config(model_cache_dir=tmp_path))
    assert "\n" not in it.value.detail
