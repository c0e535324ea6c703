"""The Ray cluster to try, with the service in front of it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import psutil
import pytest

from scripts.cluster import local
from tests.support.engine_extra import needs_engine

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra [ray] brings it"
)
LOAD_SECONDS = 240.0
REQUEST = {"prompt": "a lighthouse", "steps": 2, "width": 256, "height": 256}


def test_a_head_that_ends_at_once_is_shown_with_what_it_said(tmp_path):
    """The command's own words, and no waiting."""
    log = tmp_path / "log"
    log.write_text("there is a bug in me\n")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(SystemExit, match="there is a bug in me"):
        local.wait_for(ended, 1, log)


@needs_engine
@needs_ray
@pytest.mark.long
def test_one_command_makes_images_on_a_cluster_and_leaves_nothing(tmp_path):
    """From the start to Ctrl-C, with the demo model."""
    before = {*Path(tempfile.gettempdir()).glob("sd-ray-*")}
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "scripts.cluster.local", "--api-port", "0"),
            *("--data-dir", str(tmp_path / "data"), "--torch-threads", "1", "--log-format", "json"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    started: dict[str, dict[str, str]] = {}
    try:
        assert run.stderr is not None
        for line in run.stderr:
            said = json.loads(line) if line.startswith("{") else {}
            started |= {said["event"]: said} if "event" in said else {}
            if said.get("event") == "model_loaded":
                break
        request = urllib.request.Request(  # noqa: S310 - the service
            f"{started['service_listening']['url']}/generate",
            json.dumps(
                {"prompt": "a lighthouse", "steps": 2, "width": 256, "height": 256}
            ).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LOAD_SECONDS) as answer:  # noqa: S310 - as above
            assert json.load(answer)["metadata"]["model_version"] == "demo-1.0"
        below = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)
        run.stderr.read()
        assert run.wait(LOAD_SECONDS) == 0
    finally:
        run.kill()
        run.communicate()
    left = psutil.wait_procs(below, timeout=30)[1]
    assert [each.name() for each in left] == []
    assert {*Path(tempfile.gettempdir()).glob("sd-ray-*")} == before
