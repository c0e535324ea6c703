"""The monitoring is proven on a real Prometheus and a real Alertmanager."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config.credentials import Token
from tests.drills.monitoring.fault import EXCUSED
from tests.drills.monitoring.faults import ALL
from tests.support.job_service import service
from tests.support.monitoring import configs
from tests.support.monitoring.stack import running_stack
from tests.support.wait import until

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus.yml"
ALERTMANAGER = ROOT / "alerts" / "alertmanager.yml"
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")

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
        chosen = DEFAULT.sub(r"\1", mount.replace("${SD_API_AT:-host}", place))
        source, path, *_ = chosen.split(":")
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


def test_the_drill_has_a_fault_for_every_alert():
    """Or says why not; the one that always fires is awaited before all others."""
    rules = yaml.safe_load((ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8"))
    alerts = {r["alert"] for group in rules["groups"] for r in group["rules"] if "alert" in r}
    drilled = {fault.expected.alert for fault in ALL} | {"SDWatchdog"}
    assert drilled | set(EXCUSED) == alerts
    assert not drilled & set(EXCUSED)
    assert set(FAULTS) < {fault.name for fault in ALL}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested lists and mappings by their paths."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}", each) for key, each in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{number}]", each) for number, each in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for name, each in items for key, leaf in flat(each, name).items()}


def changed(shipped: Path, derived: Path) -> set[str]:
    """Return the last names on the paths at which two YAML files differ."""
    before, after = (
        set(flat(yaml.safe_load(path.read_text(encoding="utf-8"))).items())
        for path in (shipped, derived)
    )
    return {re.sub(r"\[\d+\]", "", path).rpartition(".")[2] for path, _ in before ^ after}


def test_the_drill_changes_targets_and_intervals_and_nothing_else(tmp_path):
    """What is proven with the derived configuration is so for the shipped one."""
    (tmp_path / "alerts").mkdir()
    tells_end = configs.write_alertmanager(
        tmp_path, webhook="http://127.0.0.1:1/", wait="1s", repeat="10m"
    )
    assert tells_end == {"page", "ticket"}
    assert changed(ALERTMANAGER, tmp_path / "alerts" / "alertmanager.yml") == {
        "group_wait",
        "group_interval",
        "repeat_interval",
        "url",
    }
    derived = configs.write_prometheus(
        tmp_path,
        rules="",
        service="127.0.0.1:2",
        own="127.0.0.1:3",
        alertmanager="127.0.0.1:4",
        seconds=1,
    )
    assert changed(PROMETHEUS, derived) == {
        "scrape_interval",
        "scrape_timeout",
        "evaluation_interval",
        "targets",
        # The exporters that are found by name: the drill has none.
        "names",
        "type",
        "port",
    }


@pytest.mark.parametrize(
    "token", [pytest.param("", marks=pytest.mark.long), "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"]
)
async def test_prometheus_brings_the_token_that_the_service_wants(token, tmp_path):
    """From the file beside its configuration; an empty one is no hindrance where none is."""
    demand("prometheus", "prometheus-alertmanager")
    async with service(tmp_path / "data", metrics_token=Token(token)) as client:
        if token:
            async with client.get("/metrics") as answer:
                assert answer.status == 401
        address = f"127.0.0.1:{client.server.port}"
        async with running_stack(tmp_path, rules="", service=address, seconds=1) as stack:
            (tmp_path / "monitoring" / "metrics-token").write_text(f"{token}\n")

            async def scraped() -> bool:
                return await stack.value('up{job="sd-api"}') == 1

            assert await until(scraped, 30, "a scrape")


@pytest.mark.long
def test_faults_raise_alerts_that_arrive_and_end(tmp_path):
    """A short form of the drill: service, Prometheus, Alertmanager and webhook are real."""
    demand("prometheus", "prometheus-alertmanager", "gcc")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.drills.monitoring", "--report", str(report)]
    command += [word for name in FAULTS for word in ("--only", name)]
    code, said = ended(command)
    assert code == 0, said
    rows = {row["name"]: row for row in json.loads(report.read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == set(FAULTS)
    assert {name for name, row in rows.items() if row["skipped"]} == set()
    assert {row["receiver"] for row in rows.values()} == {"page", "ticket", "info"}
    assert "SDQueueDepthHigh" in rows["engine_hangs"]["inhibited"]
