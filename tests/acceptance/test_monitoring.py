"""The monitoring is proven on a real Prometheus and a real Alertmanager."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus.yml"
ALERTMANAGER = ROOT / "alerts" / "alertmanager.yml"

FAULTS = ("oom_recovered", "oom_text_encode", "queue_refuses", "engine_hangs", "gpu_lost")
"""Of each kind one that needs no engine to load again."""

DRILL_SECONDS = 1500
"""Reached only when something is broken: two quiet cores need 150."""


def demand(*programs: str) -> None:
    """Skip where a program is absent."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian has all of Prometheus)")


def accepted(*command: object) -> str:
    """Run a checker that must have nothing to complain of; return what it said."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(command: list[str]) -> tuple[int, str]:
    """Run the drill to its end; return its exit code and what it said."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as drill:
        try:
            said, _ = drill.communicate(timeout=DRILL_SECONDS)
        except subprocess.TimeoutExpired:
            drill.terminate()  # It ends all that it started.
            said, _ = drill.communicate()
        return drill.returncode, said


def inside(folder: Path, place: str) -> Path:
    """Lay out what Prometheus' container has mounted; return the configuration there."""
    compose = yaml.safe_load((ROOT / "docker-compose.monitoring.yml").read_text(encoding="utf-8"))
    for mount in compose["services"]["prometheus"]["volumes"]:
        source, path, *_ = mount.replace("${SD_API_AT:-host}", place).split(":")
        if source.startswith("./"):
            copy = folder / path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copy)
            else:
                shutil.copy(ROOT / source, copy)
    return folder / "etc" / "sd-api" / "monitoring" / "prometheus.yml"


def test_promtool_accepts_the_configuration_where_it_lies():
    """With the rules that it refers to."""
    demand("promtool")
    assert "1 rule files found" in accepted("promtool", "check", "config", PROMETHEUS)


@pytest.mark.parametrize("place", ["host", "compose"])
def test_promtool_accepts_the_configuration_as_the_container_sees_it(place, tmp_path):
    """The same file, with the same relative paths, finds the rules and its targets."""
    demand("promtool")
    said = accepted("promtool", "check", "config", inside(tmp_path, place))
    assert "1 rule files found" in said
    assert "WARNING" not in said


def test_amtool_accepts_the_configuration():
    """Routes, inhibition rules and receivers are well-formed."""
    demand("amtool")
    accepted("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("page", ["severity=page", "alertname=SDQueueStuck"]),
        ("ticket", ["severity=ticket", "alertname=SDOutOfMemory"]),
        ("info", ["severity=info", "alertname=SDOutOfMemoryRecovered"]),
        ("watchdog", ["severity=none", "alertname=SDWatchdog"]),
        ("ticket", ["alertname=SomethingElse"]),
    ],
)
def test_an_alert_goes_to_whom_it_concerns(receiver, labels):
    """By its severity; what has none is not lost."""
    demand("amtool")
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"]
    accepted(*command, f"--verify.receivers={receiver}", *labels)


def test_faults_raise_alerts_that_arrive_and_end(tmp_path):
    """A short form of the drill: service, Prometheus, Alertmanager and webhook are real."""
    demand("prometheus", "prometheus-alertmanager", "gcc")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.monitoring_drill", "--report", str(report)]
    command += [word for name in FAULTS for word in ("--only", name)]
    code, said = ended(command)
    assert code == 0, said
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == set(FAULTS)
    assert {name for name, row in rows.items() if row["skipped"]} == set()
    assert {row["receiver"] for row in rows.values()} == {"page", "ticket", "info"}
    assert "SDQueueDepthHigh" in rows["engine_hangs"]["inhibited"]
