import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, SlicedAttnProcessor
from safetensors.torch import load_file, save_file

from service.config.table import Config
from service.core.events import JobFinished
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.diffusion import device, load
from service.diffusion.load import Model, load_model
from service.diffusion.loop.step_loop import StepLoop
from service.engine.process import worker
from service.errors import ConfigError, GpuBusy, GpuTooSmall, ModelError
from service.models.catalog import resolve
from service.models.source import Source
from tests.support.models import tiny_models

REQUEST = GenerationSpec(prompt="a cat", width=16, height=16, steps=2, seed=5)
HUB = Source(id="org/name", path=None, version="org/name")


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of the tiny SD model that a test may damage."""
    return shutil.copytree(folder("sd"), tmp_path / "copy")


def loaded(path: Path, **settings: Any) -> Model:
    """Load a folder or a file as the service does."""
    return load_model(
        resolve(str(path), path.parent), Config(model_cache_dir=path.parent, **settings)
    )


def made(model: Model) -> JobFinished:
    """Do one job."""
    loop = StepLoop(model, batch_limit=1)
    loop.add("a", REQUEST)
    while loop.busy:
        for outcome in loop.step():
            if isinstance(outcome, JobFinished):
                return outcome
    raise AssertionError("No image was made.")


def image(model: Model) -> RawImage:
    """Make one image."""
    return made(model).images[0]


def values(found: RawImage) -> np.ndarray:
    """Return an image's values, wide enough to subtract."""
    return np.frombuffer(found.pixels, np.uint8).astype(int)


def test_what_is_loaded(copy: Path) -> None:
    """A loaded model says what it is and where it computes."""
    info = loaded(copy).info

    assert (info.model_id, info.version, info.family) == ("copy", "copy", "sd")
    assert (info.device, info.gpu, info.dtype, info.demo) == ("cpu", False, "float32", False)
    assert info.prompt_tokens == 77
    assert info.load_seconds > 0


def test_sdxl(folder: Callable[[str], Path]) -> None:
    """An SDXL model is told by its own index."""
    assert loaded(folder("sdxl")).info.family == "sdxl"


def test_bfloat16(copy: Path) -> None:
    """Another number format than the files' is converted to."""
    model = loaded(copy, dtype="bfloat16")

    assert model.info.dtype == "bfloat16"
    assert model.family.pipeline.unet.dtype == torch.bfloat16
    assert len(image(model).pixels) == 16 * 16 * 3


def test_loading_leaves_the_default_number_format(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the process's: images that another thread draws meanwhile would compute in it."""
    asked: list[torch.dtype] = []
    usual = torch.set_default_dtype

    def set_default_dtype(dtype: torch.dtype) -> None:
        asked.append(dtype)
        usual(dtype)

    monkeypatch.setattr(torch, "set_default_dtype", set_default_dtype)
    half, whole = loaded(copy, dtype="bfloat16"), loaded(copy)
    assert set(asked) <= {torch.float32}
    for name in ("unet", "vae", "text_encoder"):
        wanted = getattr(whole.family.pipeline, name).state_dict()
        for key, value in getattr(half.family.pipeline, name).state_dict().items():
            assert torch.equal(value, wanted[key].to(value.dtype))


def test_half_precision_files_on_a_cpu(copy: Path) -> None:
    """A model that is only there in half precision computes in single on a CPU."""
    expected = image(loaded(copy))
    for path in list(copy.glob("*/*.safetensors")):
        halved = {key: value.half() for key, value in load_file(path).items()}
        save_file(halved, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()

    model = loaded(copy)

    assert model.family.pipeline.unet.dtype == torch.float32
    assert abs(values(image(model)) - values(expected)).mean() < 2


def test_names_of_older_files(copy: Path) -> None:
    """Files with the tensor names of the published SD 1.5 load like those of today."""
    expected = image(loaded(copy))
    text = copy / "text_encoder" / "model.safetensors"
    renamed = {
        "text_model." + key.removeprefix("text_model."): value
        for key, value in load_file(text).items()
    }
    renamed["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(renamed, text, metadata={"format": "pt"})
    vae = copy / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(vae)
    for new, old in older.items():
        tensors = {
            key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value
            for key, value in tensors.items()
        }
    save_file(tensors, vae, metadata={"format": "pt"})

    assert image(loaded(copy)).pixels == expected.pixels


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weight(copy: Path, part: str) -> None:
    """A part without one of its tensors is not filled up with random numbers."""
    (path,) = (copy / part).glob("*.safetensors")
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(ModelError, match=rf"copy/{part} lacks 1 weights .* Copy it again"):
        loaded(copy)


def test_wrong_shape(copy: Path) -> None:
    """Weights of another size than the configuration says are one line, not a traceback."""
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:3].clone()
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"conv_in\.weight: 3, not 32") as caught:
        loaded(copy)
    assert "\n" not in caught.value.detail


def test_tokenizer_without_a_limit(copy: Path) -> None:
    """A tokenizer that states no longest prompt takes that of its text encoder."""
    path = copy / "tokenizer" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))

    assert loaded(copy).info.prompt_tokens == 77


def test_model_that_does_not_fit(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out while loading is told from a damaged model."""

    def put(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(device, "put", put)

    with pytest.raises(
        ModelError, match=r"does not fit into memory \(CUDA out.*CPU_OFFLOAD"
    ) as told:
        loaded(copy)
    assert told.value.transient


def test_wrong_format_for_the_device(copy: Path) -> None:
    """Settings that this machine cannot follow are reported before any weight is read."""
    with pytest.raises(ConfigError, match="DTYPE=float16"):
        loaded(copy, device="cpu", dtype="float16")
    with pytest.raises(ConfigError, match="CPU_OFFLOAD=sequential"):
        loaded(copy, cpu_offload="sequential")


def test_threads(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes the CPU threads that it is given, and all of them if not told."""
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)

    loaded(copy, torch_threads=0)
    loaded(copy, torch_threads=3)

    assert asked == [3]


def sliced(model: Model) -> bool:
    """Tell whether every attention of the UNet is computed in slices."""
    (kind,) = {type(each) for each in model.family.pipeline.unet.attn_processors.values()}
    assert kind in {SlicedAttnProcessor, AttnProcessor2_0}, "it is SDPA unless sliced"
    return kind is SlicedAttnProcessor


def test_slices(copy: Path) -> None:
    """What saves memory reaches the parts, and the image stays the same up to rounding."""
    expected = image(loaded(copy))

    model = loaded(copy, attention_slicing=True, vae_tiling=True)

    assert model.family.pipeline.vae.use_tiling
    assert sliced(model)
    assert (abs(values(image(model)) - values(expected)) <= 1).mean() >= 0.999


@pytest.mark.parametrize("kind", ["sd", "sdxl", "tiny_vae"])
def test_offloading(folder: Callable[[str], Path], kind: str) -> None:
    """Parts that come and go for every call make the same image (here from CPU to CPU).

    Sequential offloading cannot be tried like this: accelerate 1.15 takes weights that stay
    on one device for tied ones, and diffusers' own pipeline fails in the same way.
    """
    expected = image(loaded(folder(kind)))
    model = replace(loaded(folder(kind)), offloaded=True)

    device.put(model.family.pipeline, torch.device("cpu"), "model")

    assert image(model).pixels == expected.pixels


def test_safety_checker_blacks_out(tmp_path: Path) -> None:
    """A flagged image is black and marked; without the checker it is the image."""
    path = tiny_models.build_with_safety_checker(tmp_path / "strict", strict=True)

    flagged, plain = image(loaded(path, safety_checker=True)), image(loaded(path))

    assert (flagged.unsafe, plain.unsafe) == (True, False)
    assert not any(flagged.pixels)
    assert len(flagged.pixels) == len(plain.pixels)
    assert any(plain.pixels)


def test_safety_checker_is_a_stage(tmp_path: Path) -> None:
    """Its time is its own; without one there is none."""
    path = tiny_models.build_with_safety_checker(tmp_path / "lenient", strict=False)

    assert made(loaded(path, safety_checker=True)).times.safety > 0
    assert made(loaded(path)).times.safety == 0


def test_safety_checker_passes(tmp_path: Path) -> None:
    """An image that is not flagged is left as it is."""
    path = tiny_models.build_with_safety_checker(tmp_path / "lenient", strict=False)

    checked, plain = image(loaded(path, safety_checker=True)), image(loaded(path))

    assert checked == plain


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_no_safety_checker(folder: Callable[[str], Path], kind: str) -> None:
    """A safety checker that the model does not have is not silently left out."""
    with pytest.raises(ModelError, match=r"SAFETY_CHECKER=true, but .* has no"):
        loaded(folder(kind), safety_checker=True)


@pytest.mark.parametrize(("free", "kind"), [(1, GpuBusy), (5, GpuTooSmall)])
def test_a_gpu_that_is_full_or_too_small(
    free: int, kind: type[ModelError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that others hold is told from memory that is not there."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * 2**30, 6 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2**29)
    error = load._model_error(
        HUB, torch.OutOfMemoryError("CUDA out of memory."), torch.device("cuda:0")
    )
    assert type(error) is kind
    assert error.transient == (kind is GpuBusy)


def test_local_models_never_ask_the_network(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local path is loaded without a single connection."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("A connection was opened.")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)

    assert loaded(folder("sd")).info.family == "sd"


def test_torch_stays_out_of_the_catalog() -> None:
    """The side without torch can list models and read requests."""
    code = (
        "import sys; import service.models.catalog, service.core.spec; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    root = str(Path(load.__file__).parents[2])

    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )

    assert found.stdout.strip() == "[]"


def test_the_same_model_twice(folder: Callable[[str], Path]) -> None:
    """Loading again gives the same images: nothing is left to chance."""
    first, second = loaded(folder("sd")), loaded(folder("sd"))

    assert image(first) == image(second)
    assert replace(first.info, load_seconds=0) == replace(second.info, load_seconds=0)


@pytest.mark.parametrize("wanted", [False, True])
def test_memory_options_reach_the_model(folder: Callable[[str], Path], *, wanted: bool) -> None:
    """From the settings of the engine's process to the parts that compute."""
    number = "bfloat16" if wanted else "float32"
    settings = Config(
        model_id=str(folder("sd")),
        device="cpu",
        dtype=number,
        attention_slicing=wanted,
        vae_tiling=wanted,
    )

    loop, ready = worker.load(settings)

    assert sliced(loop.model) == wanted
    assert bool(loop.model.family.pipeline.vae.use_tiling) == wanted
    pipeline = loop.model.family.pipeline
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {getattr(torch, number)}
    assert ready.model.dtype == number


def test_tiles_above_a_size_reach_the_step_loop(folder: Callable[[str], Path]) -> None:
    """From the setting to where images are encoded and decoded."""
    settings = Config(model_id=str(folder("sd")), device="cpu", vae_tiling_above=64)

    loop, _ = worker.load(settings)

    factor = loop.model.family.pipeline.vae_scale_factor
    for tiles in loop._recovery.tiles.values():
        assert tiles.used(torch.Size((1, 4, 8, 64 // factor + 1)))
        assert not tiles.used(torch.Size((1, 4, 8, 64 // factor)))
