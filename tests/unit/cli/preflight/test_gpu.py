"""What GPU, driver and torch end a start with: one line, an exit code, no traceback."""

import socket

import pytest

from service.cli.exits import Exit
from service.system import installation
from tests.support.engine_extra import needs_engine
from tests.unit.cli.preflight.start import giant, log, told


@needs_engine
def test_no_driver(start):
    """A GPU that is asked for where there is no driver."""
    start.card.set(init=12)
    code, line = told(start.run(DEVICE="cuda"))
    assert code == Exit.GPU_MISSING
    assert "DEVICE=cuda: there is no NVIDIA driver here" in line
    assert "--gpus all" in line


@needs_engine
def test_no_such_gpu(start):
    """A driver without the GPU that is named."""
    code, line = told(start.run(DEVICE="cuda", CUDA_VISIBLE_DEVICES="3"))
    assert code == Exit.GPU_MISSING
    assert "CUDA_VISIBLE_DEVICES=3 names no GPU of this machine, which has 1. Set it to" in line
    code, line = told(start.run(DEVICE="cuda", CUDA_VISIBLE_DEVICES=""))
    assert code == Exit.GPU_MISSING
    assert "names no GPU; set it to 0" in line


@needs_engine
def test_one_of_several_gpus_is_missing(start):
    """Its engine would compute on the CPU next to the others; whatever DEVICE is."""
    code, line = told(start.run(CUDA_VISIBLE_DEVICES="0,3"))
    assert code == Exit.GPU_MISSING
    assert "CUDA_VISIBLE_DEVICES=0,3: GPU 3: CUDA_VISIBLE_DEVICES=3 names no GPU" in line


@needs_engine
def test_one_of_several_gpus_is_too_small(start):
    """Every engine loads the same model."""
    start.card.set(gpus=2, **{"0.memory_total": 24 * 2**30, "1.name": "Small GPU"})
    model = giant(start.folder / "giant")
    code, line = told(start.run(MODEL_ID=model, CUDA_VISIBLE_DEVICES="0,1"))
    assert code == Exit.GPU_TOO_SMALL
    assert "take 7.5 GB, and Small GPU has 6.0 GB" in line


@needs_engine
def test_more_engines_than_gpus(start):
    """Two on one card would take each other's memory."""
    code, line = told(start.run(ENGINES="2"))
    assert code == Exit.SETTING
    assert "ENGINES=2: each engine needs a GPU of its own" in line


@needs_engine
def test_a_gpu_that_is_gone(start):
    """A driver that does not answer for its GPU."""
    start.card.set(lost=1)
    code, line = told(start.run(DEVICE="cuda"))
    assert code == Exit.GPU_MISSING
    assert "the driver does not answer (GPU is lost)" in line


@needs_engine
def test_an_old_driver(start):
    """A torch for CUDA 13 over a driver for CUDA 12 names both ways out, whatever DEVICE is."""
    start.torch(cuda="13.0", version="2.13.0")
    start.card.set(cuda=12040, driver="550.54.14")
    code, line = told(start.run())
    assert code == Exit.TORCH_MISMATCH
    assert "supports CUDA 12. Install driver 580 or newer (now 550.54.14)" in line
    assert "image tagged cu126" in line
    assert f"'{installation.here().torch('cu126')}'" in line


@needs_engine
def test_a_torch_for_cpus_beside_a_gpu_that_is_asked_for(start):
    """It says which installation that card wants."""
    start.torch(cuda=None, version="2.13.0+cpu")
    code, line = told(start.run(DEVICE="cuda"))
    assert code == Exit.TORCH_MISMATCH
    assert "torch 2.13.0+cpu cannot use GTX 1060: it is built for CPUs" in line
    assert "image tagged cu126" in line
    start.card.set(capability="8.9")
    assert "image tagged cuda" in told(start.run(DEVICE="cuda"))[1]


@needs_engine
def test_a_gpu_that_is_too_small(start):
    """Weights of 7.5 GB do not go into 6."""
    code, line = told(start.run(MODEL_ID=giant(start.folder / "giant")))
    assert code == Exit.GPU_TOO_SMALL
    assert "take 7.5 GB, and GTX 1060 has 6.0 GB. Set CPU_OFFLOAD=model" in line


@needs_engine
def test_a_limit_above_what_the_card_has(start):
    """Memory that is not there cannot be allowed; a card of 6 GB has a little less."""
    code, line = told(start.run(VRAM_LIMIT_GB="8"))
    assert code == Exit.SETTING
    assert "VRAM_LIMIT_GB=8: GTX 1060 has 6.0 GB; set it to 6 or less" in line


@needs_engine
def test_a_limit_below_the_weights(start):
    """A large card does not help weights that the limit keeps out."""
    start.card.set(memory_total=12 * 2**30)
    code, line = told(start.run(MODEL_ID=giant(start.folder / "giant"), VRAM_LIMIT_GB="6"))
    assert code == Exit.GPU_TOO_SMALL
    assert "take 7.5 GB, and VRAM_LIMIT_GB=6 allows less" in line


@needs_engine
def test_a_gpu_that_is_busy(start):
    """Weights that would go into the card go not into what others left of it."""
    start.card.set(memory_total=12 * 2**30, memory_used=8 * 2**30)
    code, line = told(start.run(MODEL_ID=giant(start.folder / "giant")))
    assert code == Exit.BUSY
    assert "8.0 of the 12.0 GB of GTX 1060 are taken. End what holds them ('nvidia-smi'" in line


def test_no_torch(start):
    """An installation without the engine's packages says how to get them."""
    (start.folder / "packages" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = None\n"
    )
    code, line = told(start.run())
    assert code == Exit.NOT_INSTALLED
    assert line.endswith(f"Install what the engine needs: {installation.here().engine()}")


@needs_engine
@pytest.mark.parametrize("why", ["driver", "torch"])
def test_without_a_gpu_it_says_loudly_that_it_computes_on_the_cpu(start, why):
    """The start goes on, up to the port that is taken here; DEVICE=cpu asks for silence."""
    if why == "driver":
        start.card.set(init=12)
    else:
        start.torch(cuda=None, version="2.13.0+cpu")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        loud, quiet = start.run(API_PORT=port), start.run(API_PORT=port, DEVICE="cpu")
    assert (loud.returncode, quiet.returncode) == (Exit.BUSY, Exit.BUSY)
    (line,) = log(loud)
    assert (line["level"], line["event"]) == ("warning", "NO_GPU_USED")
    assert "IMAGES ARE MADE ON THE CPU" in line["consequence"]
    assert ("driver" if why == "driver" else "built for CPUs") in line["reason"]
    assert log(quiet) == []
