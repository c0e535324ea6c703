"""What the model fails to load for, after the service listens; and a start without a network."""

import asyncio
import os
import shutil
from pathlib import Path

import aiohttp
import pytest

from service.cli.exits import Exit
from service.models import model_lock
from tests.support.models.hub import COMMIT
from tests.support.service_process import WAIT_SECONDS, ServiceProcess, ending, running_service

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "service" / "demo"
GUARD = """
import os, socket
open(os.environ["ASKED"] + f".{os.getpid()}", "w").close()
connect, resolve = socket.socket.connect, socket.getaddrinfo
def note(host):
    with open(os.environ["ASKED"], "a") as file: file.write(f"{host}\\n")
    raise OSError("the network is closed")
def guarded(self, place): return note(place) if isinstance(place, tuple) else connect(self, place)
def look(host, *a, **k): return resolve(host, *a, **k) if host == "127.0.0.1" else note(host)
socket.socket.connect, socket.getaddrinfo = guarded, look
"""


def ended(service: ServiceProcess) -> tuple[int, str]:
    """Wait until a service has ended by itself; return its exit code and what it said last."""
    code = service.process.wait(WAIT_SECONDS)
    service._reader.join(WAIT_SECONDS)
    assert not any("Traceback" in line for line in service.output)
    said = [line for line in service.output if line.startswith("sd-api: ")]
    assert len(said) == 1
    return code, said[0]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (
            {"MODEL_ID": "org/name", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
            Exit.HUB_UNREACHABLE,
            "http://127.0.0.1:9 does not answer",
        ),
        ({"DEVICE": "cpu", "DTYPE": "float16"}, Exit.SETTING, "DTYPE=float16: needs a GPU"),
    ],
    ids=["hub", "dtype"],
)
def test_what_the_machine_lacks_ends_a_service_that_listens(settings, code, words, tmp_path):
    """Its supervisor shall know: the last line is the cause and its cure, the code its kind."""
    with ending(
        ServiceProcess(**settings, MODEL_CACHE_DIR=tmp_path / "models", TORCH_THREADS=1)
    ) as service:
        service.logged("service_listening")
        found, line = ended(service)
    assert (found, words in line) == (code, True)
    assert [entry["code"] for entry in service.log if entry["event"] == "model_load_failed"]


async def test_a_fetched_model_serves_without_a_network(tmp_path):
    """With HF_HUB_OFFLINE=1 a model of the hub is loaded, and nothing asks for any host.

    While it is loaded it cannot be removed.
    """
    guard, asked = tmp_path / "guard", tmp_path / "asked"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    place = tmp_path / "models" / "models--org--name"
    shutil.copytree(DEMO, place / "snapshots" / COMMIT)
    with running_service(
        MODEL_ID="org/name",
        MODEL_CACHE_DIR=tmp_path / "models",
        HF_HUB_OFFLINE=1,
        TORCH_THREADS=1,
        PYTHONPATH=os.pathsep.join((str(guard), str(ROOT))),
        ASKED=asked,
    ) as service:
        async with (
            aiohttp.ClientSession(service.url) as client,
            client.post(
                "/generate", json={"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
            ) as answer,
        ):
            assert answer.status == 200
            metadata = (await answer.json())["metadata"]
        assert metadata["model_version"] == f"org/name@{COMMIT[:7]}"
        assert model_lock.held(place)
        watched = {service.process.pid, service.engine_pid}
        await asyncio.to_thread(service.end)
    assert not model_lock.held(place)
    assert not asked.exists()
    assert watched <= {int(path.suffix[1:]) for path in tmp_path.glob("asked.*")}
