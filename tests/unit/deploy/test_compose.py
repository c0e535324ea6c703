"""The monitoring stack's files agree with the compose specification and with each other."""

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.monitoring.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load(
    (ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8")
)
PLACES = ("host", "compose")
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def mounts(name: str, place: str = "host") -> dict[str, tuple[str, bool]]:
    """Return a container's mounts by path inside: what is mounted, and whether read-only."""
    found = {}
    for mount in SERVICES[name].get("volumes", []):
        chosen = DEFAULT.sub(r"\1", mount.replace("${SD_API_AT:-host}", place))
        source, path, *options = chosen.split(":")
        found[path] = source, "ro" in ",".join(options).split(",")
    return found


def outside(name: str, path: str, place: str = "host") -> Path:
    """Return the file of the repository that a container sees at a path."""
    inner, (source, _) = max(
        (item for item in mounts(name, place).items() if path.startswith(item[0])),
        key=lambda item: len(item[0]),
    )
    return ROOT / source / path.removeprefix(inner).lstrip("/")


def test_the_file_is_valid_by_the_compose_specification():
    """The specification's own schema accepts it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_pinned_bounded_and_comes_back(name):
    """A known version, limits to memory, processor and log, and a start after a reboot."""
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", service["image"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "dcgm-exporter"])
def test_a_container_is_checked_and_has_no_rights_to_spare(name):
    """Only the exporter of NVIDIA is an exception: no client in it, and rights it must have."""
    service = SERVICES[name]
    assert service["healthcheck"]["test"][:2] == ["CMD", "wget"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_nothing_listens_beyond_this_machine():
    """Every port is one of the loopback address; the exporters have none outside."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_exporters_are_optional():
    """They start with their profile only."""
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert {name: found for name, found in profiles.items() if found} == {
        "node-exporter": ["node"],
        "dcgm-exporter": ["dcgm"],
    }


def test_grafana_wants_a_login_and_a_password_of_ones_own():
    """Nobody looks without a name, nobody signs up, and no password is the default."""
    settings = SERVICES["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert settings["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert settings["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_mounted_is_there_and_read_only(name, place):
    """Files come from the repository and stay as they are; data goes into named volumes."""
    for source, read_only in mounts(name, place).values():
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert read_only, source
        else:
            assert source == "/" or source in COMPOSE["volumes"], source


def test_prometheus_keeps_what_the_error_budget_needs():
    """Retention is bounded by time, longer than the 30 days of the budget, and by size."""
    command = " ".join(SERVICES["prometheus"]["command"])
    (days,) = re.findall(r"--storage\.tsdb\.retention\.time=(\d+)d", command)
    assert int(days) > 30
    assert "--storage.tsdb.retention.size=" in command
    assert "--enable-feature=exemplar-storage" in command


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_a_container_finds_its_configuration(name):
    """The path on the command line leads to a file of the repository."""
    (path,) = (
        word.partition("=")[2]
        for word in SERVICES[name]["command"]
        if word.startswith("--config.file=")
    )
    assert outside(name, path).is_file()


@pytest.mark.parametrize("place", PLACES)
def test_relative_paths_lead_to_the_same_files_in_the_container(place):
    """Rules and targets are found from where prometheus.yml is inside as well as outside."""
    here = Path("/etc/sd-api/monitoring")
    (rules,) = PROMETHEUS["rule_files"]
    assert outside("prometheus", str((here / rules).resolve())) == ROOT / "alerts" / "rules.yml"
    targets = outside("prometheus", str(here / "targets"), place)
    (found,) = targets.glob("*.yml")
    assert yaml.safe_load(found.read_text(encoding="utf-8")) == [
        {"targets": ["host.docker.internal:8000" if place == "host" else "sd-api:8000"]}
    ]


def test_every_name_that_is_looked_up_is_a_container():
    """Prometheus and Grafana ask for nothing that the stack does not have."""
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    assert set(jobs) == {"sd-api", "prometheus", "alertmanager", "node", "dcgm"}
    fixed = chain(
        PROMETHEUS["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"],
        jobs["alertmanager"]["static_configs"][0]["targets"],
    )
    by_name = chain.from_iterable(
        jobs[job]["dns_sd_configs"][0]["names"] for job in ("node", "dcgm")
    )
    (source,) = _provisioned("datasources")["datasources"]
    names = {address.partition(":")[0] for address in fixed} | set(by_name)
    names.add(source["url"].removeprefix("http://").partition(":")[0])
    assert names == {"alertmanager", "node-exporter", "dcgm-exporter", "prometheus"}
    assert names < SERVICES.keys()


def test_grafana_knows_the_interval_of_the_scrapes():
    """Else $__rate_interval is shorter than two scrapes and panels stay empty."""
    (source,) = _provisioned("datasources")["datasources"]
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_grafana_finds_the_dashboards():
    """The folder that is provisioned holds the generated files, and the first page is one."""
    (provider,) = _provisioned("dashboards")["providers"]
    folder = outside("grafana", provider["options"]["path"])
    assert {path.name for path in folder.glob("*.json")} == {
        "service.json",
        "gpu.json",
        "generation.json",
    }
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert outside("grafana", home) == folder / "service.json"


def test_runbooks_are_served_where_the_alerts_say():
    """Prometheus shows the folder of its assets under /user."""
    (assets,) = (
        word.partition("=")[2]
        for word in SERVICES["prometheus"]["command"]
        if word.startswith("--web.user-assets=")
    )
    assert outside("prometheus", f"{assets}/runbooks") == ROOT / "alerts" / "runbooks"
    rules = (ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8")
    assert "externalURL }}/user/runbooks/SDTargetDown.md" in rules


def _provisioned(kind: str) -> dict[str, Any]:
    (path,) = outside("grafana", f"/etc/grafana/provisioning/{kind}").glob("*.yml")
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
