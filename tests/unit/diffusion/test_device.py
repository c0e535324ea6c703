from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from service.config.table import Config
from service.diffusion import device
from service.diffusion.load import Model
from service.errors import ConfigError, GpuMissing, TorchMismatch
from service.gpu.card import CONTEXT

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is an old GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GTX 1060")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_50", "sm_60", "sm_90"])
    monkeypatch.setattr(torch, "ones", lambda _size, **_: torch.zeros(1))


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_gpu() -> None:
    """With a GPU, auto means the GPU in half precision."""
    assert device.chosen_device("auto") == GPU
    assert device.chosen_dtype("auto", GPU) == torch.float16
    assert device.device_name(GPU) == "GTX 1060"


@pytest.mark.usefixtures("gpu")
def test_cpu_beside_a_gpu() -> None:
    """DEVICE=cpu leaves a GPU alone."""
    assert device.chosen_device("cpu") == CPU


def test_auto_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, auto means the CPU in single precision."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert device.chosen_device("auto") == CPU
    assert device.chosen_dtype("auto", CPU) == torch.float32
    assert device.device_name(CPU) == "cpu"


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is asked for and not there is an error with a cure."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(GpuMissing, match=r"DEVICE=cuda: torch finds no GPU.*DEVICE=cpu"):
        device.chosen_device("cuda")
    with pytest.raises(GpuMissing, match="CPU_OFFLOAD=model: needs a GPU"):
        device.chosen_device("auto", "model")


@pytest.mark.usefixtures("gpu")
def test_gpu_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that this torch was not built for is found before the weights are read."""

    def fail(_size: int, **_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    monkeypatch.setattr(torch, "ones", fail)

    with pytest.raises(TorchMismatch, match=r"GTX 1060.*6\.1.*no kernel image.*cu126"):
        device.chosen_device("auto")


@pytest.mark.usefixtures("gpu")
def test_gpu_that_is_not_in_the_list_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by the list, with the image and the installation that fit, and no kernel runs."""
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_120", "compute_120"])
    monkeypatch.setattr(torch, "ones", None)

    with pytest.raises(
        TorchMismatch, match=r"GTX 1060.*6\.1\): it is built for sm_75.*tagged cu126.*TORCH=cu126"
    ):
        device.chosen_device("auto")


@pytest.mark.usefixtures("gpu")
def test_a_limit_is_a_share_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 GB on a card of 80, torch may allocate what CUDA itself leaves of them."""
    shares: list[tuple[float, torch.device]] = []
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *given: shares.append(given)
    )

    device.limit_memory(GPU, 0)
    device.limit_memory(GPU, 6.0)

    ((share, limited),) = shares
    assert share == pytest.approx((6 * 2**30 - CONTEXT) / (80 * 2**30))
    assert limited == GPU


@pytest.mark.usefixtures("gpu")
def test_a_limit_of_what_a_card_is_sold_as(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of "6 GB" has 5.9, and may be limited to 6; one of 6 GB has no 7."""
    shares: list[float] = []
    card = SimpleNamespace(total_memory=int(5.93 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share)
    )

    device.limit_memory(GPU, 6.0)

    assert 0.9 < shares[0] < 0.92
    with pytest.raises(ConfigError, match=r"VRAM_LIMIT_GB=7: GTX 1060 has 5\.9 GB; set it to 6"):
        device.limit_memory(GPU, 7.0)


def test_a_limit_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has no memory of a GPU to limit."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(GpuMissing, match="VRAM_LIMIT_GB=6: needs a GPU"):
        device.chosen_device("auto", "none", 6.0)


def test_half_precision_on_a_cpu() -> None:
    """Half precision needs a GPU."""
    with pytest.raises(ConfigError, match="DTYPE=float16: needs a GPU"):
        device.chosen_dtype("float16", CPU)


@pytest.mark.usefixtures("gpu")
def test_bfloat16_on_an_old_card() -> None:
    """A card without bfloat16 is not left to emulate it."""
    with pytest.raises(ConfigError, match="GTX 1060 does not support it; use float16"):
        device.chosen_dtype("bfloat16", GPU)


@pytest.mark.parametrize("kind", ["sd", "tiny_vae"])
@pytest.mark.parametrize("wanted", [False, True])
def test_vae_tiling(model: Callable[[str], Model], kind: str, *, wanted: bool) -> None:
    """Both kinds of VAE have the switch."""
    pipeline = model(kind).family.pipeline
    pipeline.vae.disable_tiling()

    device.arrange(pipeline, Config(vae_tiling=wanted), upcast_vae=False)

    assert pipeline.vae.use_tiling == wanted
    pipeline.vae.disable_tiling()


class Recorder:
    """Stands in for a pipeline and its VAE; keeps what is called on it."""

    def __init__(self, dtype: torch.dtype = torch.float16, **config: object) -> None:
        self.vae = self
        self.dtype = dtype
        self.config = config
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name == "use_tiling":
            raise AttributeError(name)
        return lambda *values, **named: self.calls.append((name, *values, *named.values()))


def arranged(
    recorder: Recorder, *, upcast_vae: bool = False, **settings: Any
) -> list[tuple[object, ...]]:
    """Arrange a pipeline and return what was called, but for the progress bar."""
    device.arrange(recorder, replace(Config(), **settings), upcast_vae=upcast_vae)
    return recorder.calls[1:]


def test_vae_without_tiling() -> None:
    """A VAE that has no tiling is left as it is."""
    assert arranged(Recorder(), vae_tiling=True) == []


def test_attention_slicing() -> None:
    """Attention slicing is the pipeline's own."""
    assert arranged(Recorder(), attention_slicing=True) == [("enable_attention_slicing",)]


@pytest.mark.parametrize(
    ("dtype", "upcast", "calls"),
    [
        (torch.float16, True, [("to", torch.float32)]),
        (torch.float16, False, []),
        (torch.bfloat16, True, []),
    ],
)
def test_vae_that_overflows(dtype: torch.dtype, calls: list[object], *, upcast: bool) -> None:
    """A VAE that says that it overflows in float16 computes in float32."""
    assert calls == arranged(Recorder(dtype, force_upcast=upcast), upcast_vae=True)


@pytest.mark.parametrize(
    ("offload", "call"),
    [
        ("none", ("to", GPU)),
        ("model", ("enable_model_cpu_offload", GPU)),
        ("sequential", ("enable_sequential_cpu_offload", GPU)),
    ],
)
def test_where_the_parts_go(offload: str, call: tuple[object, ...]) -> None:
    """Offloading is the pipeline's own, and without it everything moves to the device."""
    recorder = Recorder()

    device.put(recorder, GPU, offload)

    assert recorder.calls == [call]


def test_cpu_decodes_channels_last() -> None:
    """On a CPU the VAE is laid out in the way in which it decodes faster."""
    recorder = Recorder()

    device.put(recorder, CPU, "none")

    assert recorder.calls == [("to", CPU), ("to", torch.channels_last)]
