"""What ends a start before anything listens: one line, an exit code, no traceback."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import exits
from service import start as checks
from service.errors import StoreFull
from service.exits import Exit
from service.jobs.claim import Claim
from tests.engine_extra import needs_engine
from tests.nvml.driver import Driver, NoCompilerError, build

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "service" / "demo"
ROOTS = os.geteuid() == 0
WAIT_SECONDS = 60.0
SETTINGS = {"API_PORT": "0", "LOG_FORMAT": "json", "HF_HUB_OFFLINE": "1", "DATA_DIR": ""}


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """Build the stand-in for the driver's library once."""
    try:
        return build(tmp_path_factory.mktemp("nvml"))
    except NoCompilerError as error:
        pytest.skip(str(error))


class Start:
    """A start of the real service with a GPU, a driver and a torch of paper."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.card = Driver(folder, library, name="GTX 1060", cuda=13000)
        self.environment: dict[str, str] = {}
        self.prefix: list[str] = []
        self.torch(cuda="12.6", version="2.13.0+cu126")

    def torch(self, *, cuda: str | None, version: str) -> None:
        """Put a torch before the installed one, of which only the version can be read."""
        package = self.folder / "packages" / "torch"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("raise AssertionError('torch was imported')\n")
        (package / "version.py").write_text(
            f"__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\n"
            "hip: Optional[str] = None\n"
        )

    def run(self, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        environment = {
            **os.environ,
            **SETTINGS,
            **self.card.environment,
            "PYTHONPATH": os.pathsep.join((str(self.folder / "packages"), str(ROOT))),
            **{name: str(value) for name, value in settings.items()},
        }
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "service", *words],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )


@pytest.fixture
def start(tmp_path, library) -> Start:
    """Return a machine with a GTX 1060, 6 GB, 2 of them taken."""
    return Start(tmp_path, library)


def told(run: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and the one line that is no log line."""
    lines = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert "Traceback" not in run.stderr
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("sd-api: ")
    return run.returncode, lines[0]


def log(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]


def giant(folder: Path) -> Path:
    """Make a model whose UNet has 4 billion weights; its file is a hole of that length."""
    shutil.copytree(DEMO, folder)
    numbers = 4 * 10**9
    config = json.loads((folder / "unet" / "config.json").read_text())
    shape = [config["block_out_channels"][0], config["in_channels"], 3, 3]
    first = 2 * math.prod(shape)
    ends = first + 2 * numbers
    head = json.dumps(
        {
            "conv_in.weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, first]},
            "w": {"dtype": "F16", "shape": [numbers], "data_offsets": [first, ends]},
        }
    ).encode()
    with (folder / "unet" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + ends)
    return folder


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
    assert "CUDA_VISIBLE_DEVICES=3 is none of the 1 GPUs" in line
    code, line = told(start.run(DEVICE="cuda", CUDA_VISIBLE_DEVICES=""))
    assert code == Exit.GPU_MISSING
    assert "names no GPU; set it to 0" in line


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
    assert "serves CUDA 12. Install driver 580 or newer (now 550.54.14)" in line
    assert "image tagged cu126" in line
    assert "make serve TORCH=cu126" in line


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
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': sys.meta_path[:] = [f for f in sys.meta_path if f is self "
        "or 'Path' not in repr(f)]\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    code, line = told(start.run())
    assert code == Exit.NOT_INSTALLED
    assert "make install, or pip install -e '.[engine]'" in line


@needs_engine
@pytest.mark.parametrize("command", [("serve",), ("generate", "a cat")])
def test_no_model(start, command):
    """What is neither here nor a hub id ends serving and generating alike."""
    code, line = told(start.run(*command, MODEL_ID="/nowhere/model"))
    assert code == Exit.MODEL_MISSING
    assert "There is no model '/nowhere/model'" in line


@needs_engine
def test_no_model_and_no_network_allowed(start):
    """HF_HUB_OFFLINE ends the start at once, instead of a service without a model."""
    code, line = told(start.run(MODEL_ID="org/name"))
    assert code == Exit.MODEL_MISSING
    assert "org/name is not in models and HF_HUB_OFFLINE=1 forbids to fetch it. Start once" in line


@needs_engine
def test_a_damaged_model(start):
    """A model_index.json that cannot be read is found before the start."""
    folder = giant(start.folder / "damaged")
    (folder / "model_index.json").write_text("{")
    code, line = told(start.run("generate", "a cat", MODEL_ID=folder / "unet" / "x.bin"))
    assert code == Exit.MODEL_MISSING
    cached = start.folder / "models" / "models--org--name" / "snapshots" / "1234567"
    cached.parent.mkdir(parents=True)
    folder.rename(cached)
    code, line = told(start.run(MODEL_ID="org/name"))
    assert code == Exit.MODEL_DAMAGED
    assert "model_index.json is damaged" in line
    assert "Fetch it again: " in line
    assert "models pull org/name --model-cache-dir" in line


def weights(path: Path, *names: str) -> Path:
    """Write a safetensors file of these tensors, of one number each."""
    rows = {
        name: {"dtype": "F16", "shape": [1, 1], "data_offsets": [2 * place, 2 * place + 2]}
        for place, name in enumerate(names)
    }
    head = json.dumps(rows).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(2 * len(names)))
    return path


@needs_engine
@pytest.mark.parametrize("command", [("serve",), ("generate", "a cat")])
def test_what_is_no_model_of_ours(start, command):
    """Each is told what it is before anything listens, instead of a service without a model."""
    empty, flux = start.folder / "empty", start.folder / "flux"
    empty.mkdir()
    flux.mkdir()
    (flux / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    pickle, text = start.folder / "model.ckpt", start.folder / "notes.txt"
    pickle.touch()
    text.touch()
    page, renamed = start.folder / "page.safetensors", start.folder / "renamed.ckpt"
    page.write_text("<!doctype html>")
    weights(renamed, "x")
    lora = weights(start.folder / "lora.safetensors", "lora_unet_mid_block.lora_up.weight")
    unet = ("input_blocks.0.0.weight", "input_blocks.1.1.0.attn2.to_k.weight")
    encoder = ("embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.bias")
    bare = weights(
        start.folder / "bare.safetensors",
        *(f"model.diffusion_model.{name}" for name in unet),
        "first_stage_model.x",
        *(f"cond_stage_model.transformer.text_model.{name}" for name in encoder),
    )
    said = {
        bare: "holds weights only, in a shape that is none of Stable Diffusion 1.5's",
        empty: "is no model in diffusers layout: it has no model_index.json",
        flux: "is a FluxPipeline. Supported are",
        pickle: "is a pickle file",
        text: "is neither a folder nor a .safetensors file",
        page: "is an HTML page. The link led to a page",
        renamed: "is a .safetensors file by its content, and has another ending. Rename it: mv",
        lora: "is no complete Stable Diffusion checkpoint",
    }
    for place, words in said.items():
        code, line = told(start.run(*command, MODEL_ID=place, DEVICE="cpu"))
        assert (code, words in line) == (Exit.MODEL_DAMAGED, True), line


@needs_engine
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
@pytest.mark.parametrize("what", ["model", "model/unet", "file.safetensors", "org/name"])
def test_a_model_of_another_users(start, what):
    """Whoever may not read it is told so, and is not told that it is damaged or absent."""
    shutil.copytree(DEMO, start.folder / "model")
    file = weights(start.folder / "file.safetensors", "x")
    cached = start.folder / "models" / "models--org--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").touch()
    theirs = (start.folder / "model", file, cached)
    for place in theirs:
        place.chmod(0)
        if ROOTS:
            os.chown(place, 1000, 1000)
    # Root may read everything, unless it gives that right away.
    start.prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if ROOTS else []
    name = what if what == "org/name" else start.folder / what
    try:
        code, line = told(start.run(MODEL_ID=name, DEVICE="cpu"))
    finally:
        for place in theirs:
            place.chmod(0o700)
    assert code == Exit.FOLDER_UNUSABLE
    assert "cannot be read (Permission denied)" in line
    assert f"readable for the service's user {os.geteuid()}:{os.getegid()}." in line


@needs_engine
def test_a_model_folder_that_cannot_be_written(start):
    """A model that has to be fetched needs a place."""
    blocked = start.folder / "file"
    blocked.touch()
    code, line = told(
        start.run(MODEL_ID="org/name", MODEL_CACHE_DIR=blocked / "models", HF_HUB_OFFLINE="0")
    )
    assert code == Exit.FOLDER_UNUSABLE
    assert f"MODEL_CACHE_DIR={blocked}/models: cannot be written (Not a directory)" in line
    assert f"the service's user {os.geteuid()}:{os.getegid()}," in line


@needs_engine
def test_a_taken_port(start):
    """The port is named, with the cure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = told(start.run(API_PORT=taken.getsockname()[1], DEVICE="cpu"))
    assert code == Exit.BUSY
    assert "set API_PORT to a free port" in line


@needs_engine
def test_an_address_of_another_machine(start):
    """It will never be free: a wrong setting."""
    code, line = told(start.run(API_HOST="192.0.2.1", ALLOW_UNAUTHENTICATED="true", DEVICE="cpu"))
    assert code == Exit.SETTING
    assert "API_HOST=192.0.2.1" in line


def test_a_public_address_without_keys(start):
    """The line names the ways out."""
    code, line = told(start.run(API_HOST="0.0.0.0"))  # noqa: S104 - refused
    assert code == Exit.SETTING
    assert "ALLOW_UNAUTHENTICATED=true" in line


@needs_engine
def test_a_data_folder_in_use(start):
    """Two services would run every job twice."""
    folder = start.folder / "data"
    folder.mkdir()
    claim = Claim(folder / "jobs.sqlite.lock")
    assert claim.take()
    try:
        code, line = told(start.run(DATA_DIR=folder, DEVICE="cpu"))
    finally:
        claim.release()
    assert code == Exit.BUSY
    assert "is in use by another process of the service" in line


@needs_engine
def test_a_data_folder_that_cannot_be_written(start):
    """The line names file and reason."""
    blocked = start.folder / "file"
    blocked.touch()
    code, line = told(start.run(DATA_DIR=blocked / "data", DEVICE="cpu"))
    assert code == Exit.FOLDER_UNUSABLE
    assert str(blocked) in line


def test_a_full_disk(tmp_path, monkeypatch):
    """It is told from a folder that is not ours, and nothing is left behind."""

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreFull, match=r"DATA_DIR=.*its disk is full") as caught:
        checks.demand_writable(tmp_path / "data", "DATA_DIR", mode=0o700)
    assert exits.code(caught.value) == Exit.DISK_FULL
    assert list((tmp_path / "data").iterdir()) == []


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
    assert "PICTURES ARE MADE ON THE CPU" in line["consequence"]
    assert ("driver" if why == "driver" else "built for CPUs") in line["reason"]
    assert log(quiet) == []
