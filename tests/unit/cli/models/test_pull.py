"""Fetching models: the real command, the real client, a hub of paper."""

import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import structlog
from safetensors.numpy import load_file, save

from service.cli.exits import Exit
from service.models import catalog
from service.models.hub import progress
from service.models.hub import pull as downloads
from tests.unit.cli.models.machine import DEMO, INDEX, ROOT, UNET, WAIT_SECONDS

HELD_AT = 11 * 2**20
"""The client writes in pieces of 10 MiB: one is written, the second never comes whole."""


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
    (said,) = [line for line in told.splitlines() if "To continue: " in line]
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
    assert [*machine.cache.glob(f"**/{INDEX}")] == [machine.file(INDEX)]
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


@pytest.mark.long
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
    assert "HF_HUB_OFFLINE=1 forbids downloading org/name" in told
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


@pytest.mark.long
def test_the_guard_sees_a_connection(machine, closed):
    """Without HF_HUB_OFFLINE the same command does ask: the test above can fail."""
    assert machine.models("pull", "org/name")[0] == Exit.HUB_UNREACHABLE
    assert closed.read_text()
