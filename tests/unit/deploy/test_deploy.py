"""deploy/: the unit of systemd and the manifests of Kubernetes, against the service's settings."""

import configparser
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.cli.serving.binding import check
from service.config.loading import load
from service.config.setting import environment_name
from service.config.table import Config

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "sd-api.service"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.30"
"""The oldest that the manifests are for: it is the first with preStop.sleep."""

MANIFESTS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.stem != "kustomization"
}
POD = MANIFESTS["statefulset"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
SETTINGS = {environment_name(row) for row in fields(Config)}
NEEDED_SECONDS = Config().shutdown_timeout_seconds + 10
"""No end outlasts that."""


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def environment(path: Path) -> dict[str, str]:
    """Return what a file of an environment sets, as systemd reads it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def test_systemd_takes_the_unit(tmp_path):
    """Each directive is known and has a value that is one."""
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed")
    file = tmp_path / UNIT.name
    command = f"ExecStart={sys.executable} -m service serve"
    file.write_text(re.sub(r"(?m)^ExecStart=.*$", command, UNIT.read_text(encoding="utf-8")))
    done = subprocess.run(
        [program, "verify", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_lets_accepted_work_end():
    """The engine gets no SIGTERM, and nothing is killed before the service has given up."""
    service = unit()["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > NEEDED_SECONDS
    assert service["OOMPolicy"] == "continue"
    assert "2" in service["RestartPreventExitStatus"].split()
    assert int(service["LimitNOFILE"]) > 2 * Config().max_connections


def test_the_guide_shows_lines_of_the_unit():
    """What docs/STARTUP.md recommends is what is shipped."""
    guide = (DEPLOY.parent / "docs" / "STARTUP.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```ini\n(.*?)```", guide, re.DOTALL)
    assert set(shown.splitlines()) <= set(UNIT.read_text(encoding="utf-8").splitlines())


def test_the_settings_of_the_unit_are_taken(tmp_path):
    """Names are known, values valid, and the folders those that the unit may write."""
    given = environment(DEPLOY / "sd-api.env")
    keys = tmp_path / "keys"
    keys.write_text("alice:5f0c2f8e51d94b0ab1f7c8d2e6a3490b\n", encoding="utf-8")
    assert set(given) <= SETTINGS
    check(load(given | {"API_KEYS_FILE": str(keys)}, {}))
    state = f"/var/lib/{unit()['Service']['StateDirectory']}/"
    assert given["DATA_DIR"].startswith(state)
    assert given["MODEL_CACHE_DIR"].startswith(state)


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_manifests(name):
    """Every field is one of the API's, in the oldest version that they are for and the newest."""
    for version in (VERSION, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_a_field_that_does_not_exist_is_found():
    """The check above would see a typing error."""
    wrong = MANIFESTS["service"] | {"spec": {"selctor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_every_manifest_is_applied():
    """The list of kustomize has each file."""
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    assert {Path(name).stem for name in listed["resources"]} == set(MANIFESTS)


def test_the_probes_ask_what_is_meant_for_them():
    """Live decides about a restart, ready about traffic, on the port where it listens."""
    paths = {
        name: (CONTAINER[name]["httpGet"]["path"], CONTAINER[name]["httpGet"]["port"])
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {
        "startupProbe": ("/health/live", "http"),
        "livenessProbe": ("/health/live", "http"),
        "readinessProbe": ("/health/ready", "http"),
    }
    port = str(CONTAINER["ports"][0]["containerPort"])
    assert port == MANIFESTS["configmap"]["data"]["API_PORT"]
    assert port == str(MANIFESTS["service"]["spec"]["ports"][0]["port"])


def test_the_pod_lets_accepted_work_end():
    """The grace is longer than the wait before SIGTERM and all that follows it."""
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > wait + NEEDED_SECONDS


def test_the_settings_of_the_pod_are_taken(tmp_path):
    """Names are known, values valid, and what is written lies in a volume."""
    given = dict(MANIFESTS["configmap"]["data"])
    homes = [given.pop(name) for name in ("HOME", "HF_HOME")]
    keys = tmp_path / "keys"
    keys.write_text("alice:5f0c2f8e51d94b0ab1f7c8d2e6a3490b\n", encoding="utf-8")
    assert set(given) | {one["name"] for one in CONTAINER["env"]} <= SETTINGS
    check(load(given | {"API_KEYS_FILE": str(keys)}, {}))
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    for place in (*homes, *(given[n] for n in ("DATA_DIR", "MODEL_CACHE_DIR", "API_KEYS_FILE"))):
        assert any(Path(place).is_relative_to(mount) for mount in mounts), place


def test_the_pod_has_no_rights_that_it_does_not_need():
    """No root, no way to become it, nothing writable but its volumes."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert not POD["automountServiceAccountToken"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
