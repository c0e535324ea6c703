"""Fetching, checking and removing models: the real command, the real client, a hub of paper."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from service.exits import Exit
from service.models import catalog
from service.models import hub as downloads
from service.models.hub import RemoteFile
from tests.hub import Hub

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "service" / "demo"
UNET = "unet/diffusion_pytorch_model.safetensors"
WAIT_SECONDS = 120.0
HELD_AT = 11 * 2**20
"""The client writes in pieces of 10 MiB: one is written, the second never comes whole."""


class Machine:
    """A folder for models, and the hub that it asks."""

    def __init__(self, folder: Path, url: str) -> None:
        self.cache = folder / "models"
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
    assert machine.models("verify", "org/name") == (0, "org/name\torg/name@0123456\twhole\n", "")


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
    assert "go on with: sd-api models pull org/name" in told
    assert told.endswith("sd-api: interrupted.\n")
    assert "HTTP Request" not in told
    assert list(machine.cache.glob("models--org--name/blobs/*.part"))


def test_a_service_logs_how_far_a_fetch_is(tmp_path, monkeypatch):
    """Its log is all that is seen of a first start, which may take half an hour."""
    monkeypatch.setattr(downloads, "LOG_SECONDS", 0.001)
    blobs = downloads.repository(tmp_path, "org/name") / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.part").write_bytes(bytes(30))
    chosen = [RemoteFile(path="a", size=120)]
    told = threading.Event()

    def noted(_logger, _method, event):
        told.set()
        return event

    processors = structlog.get_config()["processors"]
    with structlog.testing.capture_logs() as lines:
        structlog.configure(processors=[noted, *structlog.get_config()["processors"]])
        with downloads._progress("org/name", chosen, tmp_path, shown=False):
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
    assert "sd-api models pull org/name" in told
    hub.altered.clear()
    assert machine.models("pull", "org/name")[0] == Exit.DONE
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
    assert "vae/diffusion_pytorch_model.safetensors is cut short or damaged" in told
    hub.requests.clear()
    assert machine.models("pull", "org/name")[0] == Exit.DONE
    assert {Path(path).parent.name for path, _ in hub.fetched(".safetensors")} == {"unet", "vae"}
    assert machine.models("verify")[0] == Exit.DONE


def test_verify_checks_a_folder_of_ones_own_by_its_headers(machine):
    """There is no checksum to hold it against, but its length must be what it promises."""
    shutil.copytree(DEMO, machine.cache / "mine")
    assert machine.models("verify", "mine")[0] == Exit.DONE
    os.truncate(machine.cache / "mine" / UNET, 10**6)
    code, _, told = machine.models("verify", "mine")
    assert code == Exit.MODEL_DAMAGED
    assert UNET in told


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


NOT_INSIDE = ("demo", "../outside", ".", "", "org/name", "../models", "x/..", "x/../../models", "/")


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
