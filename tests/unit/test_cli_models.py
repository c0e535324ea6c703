"""Fetching, checking and removing models: the real command, the real client, a hub of paper."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import structlog
from safetensors.numpy import load_file, save, save_file

from service.exits import Exit
from service.models import catalog, progress
from service.models import hub as downloads
from tests.hub import Hub

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "service" / "demo"
INDEX = "model_index.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
WAIT_SECONDS = 120.0
HELD_AT = 11 * 2**20
"""The client writes in pieces of 10 MiB: one is written, the second never comes whole."""


class Machine:
    """A folder for models, and the hub that it asks."""

    def __init__(self, folder: Path, url: str) -> None:
        self.cache = folder / "its models"
        self.environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "MODEL_CACHE_DIR": str(self.cache),
            "CUDA_VISIBLE_DEVICES": "",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "models", *words],
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def models(self, *words: str, **settings: str) -> tuple[int, str, str]:
        process = self.start(*words, **settings)
        out, told = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in told
        return process.returncode, out, told

    def typed(self, told: str) -> tuple[int, str]:
        """Run the command that a line ends with, from another folder and with no settings."""
        (command,) = re.findall(r": ([^:]*sd-api models .*|[^:]* -m service models .*)", told)
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            env={k: v for k, v in self.environment.items() if k != "MODEL_CACHE_DIR"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stdout

    def file(self, name: str) -> Path:
        return next(self.cache.glob(f"models--org--name/snapshots/*/{name}"))


@pytest.fixture
def hub() -> Hub:
    """Return a hub that holds the demo model as org/name."""
    return Hub(DEMO)


@pytest.fixture
def machine(hub, tmp_path) -> Iterator[Machine]:
    """Return a machine without models."""
    with hub.serving() as url:
        yield Machine(tmp_path, url)


def spoil(path: Path) -> None:
    """Change one byte near the end of a file."""
    with path.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)
        file.seek(-9, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def test_pull_fetches_a_model_with_a_bar_and_checks_it(machine, hub):
    """What is listed, verified and resolved afterwards is the hub's, byte by byte."""
    code, out, told = machine.models("pull", "org/name")
    assert code == Exit.DONE, told
    assert out.startswith("org/name\torg/name@0123456\t")
    assert out.endswith("checked\n")
    assert "org/name: 100%" in told
    assert machine.file(UNET).read_bytes() == hub.files[UNET]
    assert "org/name\torg/name@0123456" in machine.models("list")[1]
    assert machine.models("verify", "org/name") == (
        0,
        "org/name\torg/name@0123456\twhole (hashes compared)\n",
        "",
    )


def test_a_fetch_that_is_killed_goes_on_where_it_was(machine, hub):
    """The second try asks for the rest of the file, and the whole has the right checksum."""
    hub.hold_at = HELD_AT
    process = machine.start("pull", "org/name")
    assert hub.held.wait(WAIT_SECONDS)
    repository = machine.cache / "models--org--name" / "blobs"
    while not any(path.stat().st_size >= 10 * 2**20 for path in repository.glob("*.part")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert machine.models("verify", "org/name")[0] in {Exit.MODEL_MISSING, Exit.MODEL_DAMAGED}
    hub.hold_at = None
    hub.requests.clear()
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.DONE, told
    ((_, resumed),) = hub.fetched(UNET)
    assert resumed == f"bytes={10 * 2**20}-"
    assert machine.models("verify", "org/name")[0] == Exit.DONE


def test_an_interrupted_fetch_says_how_to_go_on(machine, hub):
    """Ctrl-C is no fault of the program: two lines, no traceback, and what came is kept."""
    hub.hold_at = HELD_AT
    process = machine.start("pull", "org/name")
    assert hub.held.wait(WAIT_SECONDS)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in told
    assert told.endswith("sd-api: interrupted.\n")
    assert "HTTP Request" not in told
    assert list(machine.cache.glob("models--org--name/blobs/*.part"))
    assert machine.models("verify", "org/name")[0] == Exit.MODEL_DAMAGED
    hub.hold_at = None
    (said,) = [line for line in told.splitlines() if "go on with: " in line]
    assert machine.typed(said)[0] == Exit.DONE
    assert machine.models("verify", "org/name")[0] == Exit.DONE


def test_a_service_logs_how_far_a_fetch_is(tmp_path, monkeypatch):
    """Its log is all that is seen of a first start, which may take half an hour."""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.001)
    blobs = downloads.repository(tmp_path, "org/name") / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.part").write_bytes(bytes(30))
    told = threading.Event()

    def noted(_logger, _method, event):
        told.set()
        return event

    processors = structlog.get_config()["processors"]
    with structlog.testing.capture_logs() as lines:
        structlog.configure(processors=[noted, *structlog.get_config()["processors"]])
        held = partial(downloads._held, "org/name", tmp_path)
        with progress.progress("org/name", 120, held, shown=False):
            assert told.wait(WAIT_SECONDS)
    structlog.configure(processors=processors)
    assert lines[0] == {
        "event": "model_download_continues",
        "log_level": "info",
        "model_id": "org/name",
        "bytes": 30,
        "of": 120,
        "percent": 25,
    }


def test_what_is_spoilt_on_the_way_is_not_kept(machine, hub):
    """It has the right length and the wrong checksum: the next try fetches it again."""
    data = bytearray(hub.files[UNET])
    data[-9] ^= 1
    hub.altered[UNET] = bytes(data)
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert "arrived with another checksum" in told
    hub.altered.clear()
    assert machine.typed(told.splitlines()[-1])[0] == Exit.DONE
    assert machine.file(UNET).read_bytes() == hub.files[UNET]


def test_verify_names_what_is_damaged_and_pull_repairs_it(machine, hub):
    """A flipped bit is found by the checksum, a cut by the header; only they are fetched again."""
    machine.models("pull", "org/name")
    spoil(machine.file(UNET).resolve())
    os.truncate(machine.file("vae/diffusion_pytorch_model.safetensors").resolve(), 1000)
    code, out, told = machine.models("verify")
    assert code == Exit.MODEL_DAMAGED
    assert "org/name" not in out
    assert f"{UNET} does not have the checksum" in told
    assert "vae/diffusion_pytorch_model.safetensors is cut short: " in told
    hub.requests.clear()
    assert machine.models("pull", "org/name")[0] == Exit.DONE
    assert {Path(path).parent.name for path, _ in hub.fetched(".safetensors")} == {"unet", "vae"}
    assert machine.models("verify")[0] == Exit.DONE


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "link", "pointer", "index"])
def test_the_command_that_a_damage_ends_with_repairs_it(machine, hub, how):
    """From any folder, whatever the name of the cache."""
    machine.models("pull", "org/name")
    path = machine.file(INDEX if how == "index" else UNET)
    if how == "flipped":
        spoil(path.resolve())
    elif how == "cut":
        os.truncate(path.resolve(), 1000)
    elif how == "gone":
        path.resolve().unlink()
    elif how == "link":
        path.unlink()
    elif how == "pointer":
        path.resolve().write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    else:
        path.resolve().write_bytes(b"[" * 100_000)
    code, out, told = machine.models("verify", "org/name")
    assert (code, out) == (Exit.MODEL_DAMAGED, "")
    assert machine.typed(told.splitlines()[-1])[0] == Exit.DONE
    assert machine.file(UNET).read_bytes() == hub.files[UNET]
    assert machine.models("verify", "org/name")[0] == Exit.DONE


def test_verify_checks_a_folder_of_ones_own_by_its_headers(machine):
    """There is no checksum to hold it against, but its length must be what it promises."""
    shutil.copytree(DEMO, machine.cache / "mine")
    assert machine.models("verify", "mine") == (0, "mine\tmine\tcomplete (lengths only)\n", "")
    os.truncate(machine.cache / "mine" / UNET, 10**6)
    code, _, told = machine.models("verify", "mine")
    assert code == Exit.MODEL_DAMAGED
    assert UNET in told
    assert told.endswith("Copy it again from where the folder came from.\n")


def lora(path: Path) -> Path:
    save_file({"lora_unet_down_blocks_0.lora_up.weight": np.zeros((1,), np.float16)}, path)
    return path


def pickled(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).write_bytes(pickle.dumps({"w": 1}))


def binary(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).rename((folder / UNET).with_suffix(".bin"))


def unfinished(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / UNET).unlink()


def deep(folder: Path) -> None:
    shutil.copytree(DEMO, folder)
    (folder / INDEX).write_bytes(b"[" * 100_000)


NO_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.mkdir, "it has no model_index.json"),
    "pickled": (pickled, "is a pickle file"),
    "binary": (binary, "pickle"),
    "unfinished": (unfinished, "no weights"),
    "deep": (deep, "is damaged (it is nested too deep)"),
    "lora.safetensors": (lora, "is no complete Stable Diffusion checkpoint"),
    "page.safetensors": (lambda path: path.write_text("<!doctype html>"), "is an HTML page"),
    "cut.safetensors": (lambda path: os.truncate(lora(path), 90), "is cut short"),
    "broken.safetensors": (lambda path: path.symlink_to("gone"), "which is not there"),
    "loop": (lambda path: path.symlink_to("loop"), "which is not there"),
    "pipe.safetensors": (os.mkfifo, "is a named pipe"),
    "old.ckpt": (lambda path: path.write_bytes(pickle.dumps({})), "is a pickle file"),
}
ANOTHER_THING = {"lora.safetensors", "old.ckpt"}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_never_called_whole(machine, name):
    """One line, exit code 65."""
    make, words = NO_MODELS[name]
    machine.cache.mkdir()
    make(machine.cache / name)
    code, out, told = machine.models("verify", name)
    assert (code, out) == (Exit.MODEL_DAMAGED, "")
    assert words in told
    assert told.count("\n") == 1
    assert told.startswith("sd-api: ")


@pytest.mark.parametrize("damage", [False, True])
def test_what_is_no_model_is_left_out_of_the_list(machine, damage):
    """With its reason, a line each; verify fails only for what is damaged."""
    shutil.copytree(DEMO, machine.cache / "whole")
    names = sorted(set(NO_MODELS) if damage else ANOTHER_THING)
    for name in names:
        NO_MODELS[name][0](machine.cache / name)
    for action, exit_code in (("list", 0), ("verify", Exit.MODEL_DAMAGED if damage else 0)):
        code, out, told = machine.models(action)
        assert (code, [line.split("\t")[0] for line in out.splitlines()]) == (
            exit_code,
            ["demo", "whole"],
        )
        for name, line in zip(names, told.splitlines(), strict=True):
            assert line.startswith(f"sd-api: {name}")
            assert NO_MODELS[name][1] in line


def test_what_is_not_there_is_missing(machine):
    """Which is another exit code."""
    code, out, told = machine.models("verify", "org/name")
    assert (code, out) == (Exit.MODEL_MISSING, "")
    assert machine.typed(told)[0] == Exit.DONE
    code, _, told = machine.models("verify", "nothing")
    assert code == Exit.MODEL_MISSING
    assert machine.typed(told)[0] == Exit.DONE


def test_other_things_of_the_hub_are_no_models(machine):
    """Its cache is shared with other programs: a language model has no model_index.json."""
    folder = machine.cache / "models--meta--llama" / "snapshots" / "0123456"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    code, out, told = machine.models("list")
    assert (code, "llama" in out) == (Exit.DONE, False)
    assert "meta/llama is left out: meta/llama has no model_index.json" in told
    assert machine.models("verify")[0] == Exit.DONE
    assert machine.models("verify", "meta/llama")[0] == Exit.MODEL_DAMAGED


def test_a_damaged_file_that_nothing_reads_is_a_note(machine, tmp_path):
    """But what does not have the hub's checksum is damage of the cache."""
    stray = "unet/diffusion_pytorch_model.non_ema.safetensors"
    shutil.copytree(DEMO, tmp_path / "mine")
    (tmp_path / "mine" / stray).write_bytes(b"damaged")
    source = catalog.resolve(str(tmp_path / "mine"), machine.cache)
    (fault,) = downloads.damaged(source, half=False)
    assert (fault.path.name, fault.stray) == (Path(stray).name, True)
    machine.models("pull", "org/name")
    blob = machine.file(UNET).resolve().with_name("0" * 64)
    blob.write_bytes(b"damaged")
    machine.file(UNET).with_name(Path(stray).name).symlink_to(blob)
    code, _, told = machine.models("verify", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert "does not have the checksum" in told
    assert catalog.resolve("org/name", machine.cache).path is not None


def test_what_is_damaged_on_the_hub_is_not_fetched_again_and_again(machine, hub):
    """The cure is another model."""
    hub.files[UNET] = hub.files[UNET][:-1]
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert "the hub has it like this. Choose another model." in told


def test_pull_fetches_a_configuration_without_weights(machine, hub):
    """What a single file needs: it is no model, it can be removed, and weights may follow."""
    code, out, told = machine.models("pull", "org/name", "--configuration")
    assert code == Exit.DONE, told
    assert out.endswith(", configuration only\n")
    assert hub.fetched(".safetensors") == []
    for name in (INDEX, "unet/config.json", "tokenizer/tokenizer.json"):
        assert machine.file(name).read_bytes() == hub.files[name]
    assert catalog.configurations(machine.cache) == [machine.file(INDEX).parent]
    code, out, told = machine.models("list")
    assert (code, "org/name" in out) == (Exit.DONE, False)
    assert "org/name is here without weights" in told
    assert machine.models("verify")[0] == Exit.DONE
    code, _, told = machine.models("verify", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert catalog.resolve("org/name", machine.cache).path is None, "serving fetches the weights"
    assert machine.typed(told)[0] == Exit.DONE
    assert machine.models("verify", "org/name")[0] == Exit.DONE
    machine.models("remove", "org/name", "--yes")
    machine.models("pull", "org/name", "--configuration")
    assert machine.models("remove", "org/name", "--yes")[0] == Exit.DONE
    assert list(machine.cache.glob("models--*")) == []


def test_half_precision_shards_are_fetched_and_whole(machine, hub):
    """A model that the hub has in no other form, and a VAE that it has in full precision only."""
    whole = load_file(DEMO / UNET)
    del hub.files[UNET]
    stem = "unet/diffusion_pytorch_model"
    listed: dict[str, str] = {}
    for number, keys in enumerate((sorted(whole)[::2], sorted(whole)[1::2]), start=1):
        name = f"{stem}.fp16-{number:05}-of-00002.safetensors"
        hub.files[name] = save({key: whole[key] for key in keys})
        listed |= dict.fromkeys(keys, Path(name).name)
    index = {"metadata": {}, "weight_map": listed}
    hub.files[f"{stem}.safetensors.index.fp16.json"] = json.dumps(index).encode()
    assert machine.models("pull", "org/name")[0] == Exit.DONE
    assert machine.models("verify", "org/name")[0] == Exit.DONE
    machine.file(f"{stem}.fp16-00002-of-00002.safetensors").unlink()
    assert machine.models("verify", "org/name")[0] == Exit.MODEL_DAMAGED


def test_remove_asks_before_it_deletes(machine):
    """Without a terminal to ask on it wants --yes; then nothing of the model is left."""
    machine.models("pull", "org/name")
    code, _, told = machine.models("remove", "org/name")
    assert code == Exit.SETTING
    assert "confirm it with --yes" in told
    assert machine.file(UNET).is_file()
    code, out, _ = machine.models("remove", "org/name", "--yes")
    assert (code, out.split("\t")[0]) == (Exit.DONE, "org/name")
    assert not (machine.cache / "models--org--name").exists()


NOT_INSIDE = (
    "demo",
    "../outside",
    ".",
    "",
    "org/name",
    "../its models",
    "x/..",
    "x/../../its models",
    "/",
)


@pytest.mark.parametrize("name", NOT_INSIDE)
def test_remove_deletes_nothing_outside_the_cache(machine, name):
    """Neither the bundled model, nor what a path leads to, nor the cache itself."""
    (machine.cache / "mine").mkdir(parents=True)
    outside = machine.cache.parent / "outside"
    outside.mkdir()
    code, _, told = machine.models("remove", name, "--yes")
    assert code == Exit.MODEL_MISSING
    assert "only what is there is removed" in told
    assert outside.is_dir()
    assert (machine.cache / "mine").is_dir()
    assert (DEMO / UNET).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
@pytest.mark.parametrize("kind", ["hub", "folder", "file"])
def test_remove_leaves_a_model_that_somebody_works_with(machine, kind):
    """Its engine could not be started again; when nobody does any more, it goes."""
    machine.cache.mkdir()
    name = {"hub": "org/name", "folder": "mine", "file": "mine.safetensors"}[kind]
    if kind == "hub":
        machine.models("pull", name)
    elif kind == "folder":
        shutil.copytree(DEMO, machine.cache / name)
    else:
        shutil.copy(DEMO / UNET, machine.cache / name)
    path = catalog.resolve(name, machine.cache).path
    worker = "import sys; from pathlib import Path; from service.models import in_use; "
    worker += "in_use.hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", worker, str(path)],
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, _, told = machine.models("remove", name, "--yes")
        assert (code, f"{name} is in use" in told) == (Exit.BUSY, True)
        assert path is not None
        assert path.exists()
        process.communicate()
    assert machine.models("remove", name, "--yes")[0] == Exit.DONE
    assert not path.exists()


def test_remove_takes_a_link_and_leaves_what_it_leads_to(machine, tmp_path):
    """A model that is linked into the cache belongs to somebody else."""
    shutil.copytree(DEMO, tmp_path / "theirs")
    machine.cache.mkdir()
    (machine.cache / "linked").symlink_to(tmp_path / "theirs")
    assert machine.models("remove", "linked", "--yes")[0] == Exit.DONE
    assert not (machine.cache / "linked").is_symlink()
    assert (tmp_path / "theirs" / UNET).is_file()


def test_a_model_that_the_hub_does_not_have(machine):
    """It is said, with the setting to look at."""
    code, _, told = machine.models("pull", "org/other")
    assert code == Exit.MODEL_MISSING
    assert "has no model org/other" in told
    assert "HF_TOKEN" in told


def test_a_network_that_wants_a_login_is_no_hub(machine, hub):
    """Whatever answers in its place: one line, and not the client's own traceback."""
    hub.portal = True
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.HUB_UNREACHABLE
    assert "does not answer (" in told
    assert "Check the network and proxy" in told


def test_a_cache_with_parts_that_cannot_be_written(machine):
    """Left by another user, say: the folder itself can be written, and the line names the part."""
    (machine.cache / "models--org--name").mkdir(parents=True)
    (machine.cache / "models--org--name" / "blobs").touch()
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.FOLDER_UNUSABLE
    assert f"MODEL_CACHE_DIR={machine.cache}: {machine.cache}/models--org--name/blobs" in told


def test_a_repository_of_something_else(machine, hub):
    """A LoRA or a single file on the hub has no model_index.json."""
    del hub.files["model_index.json"]
    code, _, told = machine.models("pull", "org/name")
    assert code == Exit.MODEL_DAMAGED
    assert "org/name: the hub has no model_index.json of it" in told


def test_a_hub_out_of_reach(machine):
    """The line names the hub and the ways around it."""
    code, _, told = machine.models("pull", "org/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == Exit.HUB_UNREACHABLE
    assert "http://127.0.0.1:9 does not answer" in told
    *log, last = told.splitlines()
    assert last.startswith("sd-api: ")
    assert "Retrying in" in told
    assert {line[0] for line in log} == {"{"}, "lines that a collector of the log cannot read"
    assert "HF_ENDPOINT" in told


GUARD = """
import os, socket
def refuse(*a, **k):
    with open(os.environ["ASKED"], "a") as file: file.write(repr(a) + "\\n")
    raise OSError("the network is closed")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
"""


@pytest.fixture
def closed(machine, tmp_path) -> Path:
    """Close the network of every Python; what is tried nevertheless stands in this file."""
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD)
    machine.environment |= {
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "ASKED": str(tmp_path / "asked"),
    }
    return Path(tmp_path / "asked")


def test_offline_nothing_asks_the_network(machine, closed):
    """HF_HUB_OFFLINE=1: pulling and starting end at once, and no connection is tried."""
    code, _, told = machine.models("pull", "org/name", HF_HUB_OFFLINE="1")
    assert code == Exit.MODEL_MISSING
    assert "HF_HUB_OFFLINE=1 forbids to fetch org/name" in told
    started = subprocess.run(
        [sys.executable, "-m", "service", "serve"],
        env={**machine.environment, "HF_HUB_OFFLINE": "1", "MODEL_ID": "org/name", "DATA_DIR": ""},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert started.returncode == Exit.MODEL_MISSING
    assert not closed.exists()


def test_the_guard_sees_a_connection(machine, closed):
    """Without HF_HUB_OFFLINE the same command does ask: the test above can fail."""
    assert machine.models("pull", "org/name")[0] == Exit.HUB_UNREACHABLE
    assert closed.read_text()
