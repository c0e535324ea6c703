"""The compose files together, as they are documented: what a container would be given."""

import ipaddress
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cards.choice import env_text
from service.cli.serving import binding
from service.config import loading, setting, table
from service.errors import ConfigError
from service.http.uploads.receiving import body_bytes
from tests.support.deploy.compose import ROOT, merged, needs_compose
from tests.support.deploy.compose import config as composed
from tests.support.deploy.nginx import words

pytestmark = needs_compose

BASE = ("-f", "docker-compose.yml")
CPU = (*BASE, "--profile", "cpu")
PROD = (*BASE, "-f", "docker-compose.prod.yml")
NGINX = (*PROD, "-f", "docker-compose.nginx.yml")
MONITORING = ("-f", "docker-compose.monitoring.yml")
ALL = {
    "quick start": BASE,
    "cpu": CPU,
    "quick start, monitored": (*BASE, *MONITORING),
    "cpu, monitored": (*CPU, *MONITORING),
    "production": PROD,
    "production, monitored": (*PROD, *MONITORING),
    "production with nginx": NGINX,
    "production with nginx, monitored": (*NGINX, *MONITORING),
}
GUIDE = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"docker compose ((?:(?:-f|--profile) \S+ )+)", GUIDE.replace("\\\n", ""))


@pytest.fixture(scope="module", params=ALL)
def combined(request) -> dict[str, Any]:
    """Return one combination, merged."""
    return merged(*ALL[request.param])


def settings(service: dict[str, Any]) -> table.Config:
    """Return what the service would make of its environment, the image's beneath."""
    image = {"API_HOST": "0.0.0.0", "DATA_DIR": "/data", "MODEL_CACHE_DIR": "/models"}  # noqa: S104
    return loading.load(image | service["environment"])


def test_every_combination_is_valid_by_the_compose_specification(combined, tmp_path):
    """The specification's own schema accepts what Docker Compose merged."""
    path = tmp_path / "compose.json"
    path.write_text(json.dumps(combined), encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_documented_combination_is_one_of_these():
    """The guide names no other combination, and each of these files."""
    assert DOCUMENTED
    assert {tuple(command.split()) for command in DOCUMENTED} <= set(ALL.values())
    for path in ROOT.glob("docker-compose*.yml"):
        assert path.name in GUIDE


def test_a_service_starts_with_what_it_is_given(combined):
    """Every variable is a setting, none contradicts another, and it may listen there."""
    rows = {setting.environment_name(row) for row in fields(table.Config)}
    for name in ("sd-api", "sd-api-cpu"):
        if name in combined["services"]:
            service = combined["services"][name]
            assert service["environment"].keys() <= rows
            binding.check(settings(service))


def test_a_service_has_no_rights_to_spare(combined):
    """No capability, no new ones, no user root, no tree to write to but volumes and /tmp."""
    for name in ("sd-api", "sd-api-cpu"):
        if name in combined["services"]:
            service = combined["services"][name]
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert service["tmpfs"] == ["/tmp"]  # noqa: S108
            assert not service["user"].startswith("0")
            assert {mount["target"] for mount in service["volumes"]} == {"/models", "/data"}


def test_an_end_waits_for_accepted_work(combined):
    """Longer than the longest end, whatever the shutdown time is."""
    service = combined["services"]["sd-api"]
    minutes, seconds = re.findall(r"\d+", service["stop_grace_period"])
    grace = 60 * int(minutes) + int(seconds)
    assert grace > settings(service).shutdown_timeout_seconds + 10


def test_nothing_is_published_but_on_loopback_or_by_nginx(combined):
    """Other machines reach nginx alone; in production nothing else has a port of its own."""
    for name, service in combined["services"].items():
        for port in service.get("ports", []):
            assert name == "nginx" or port["host_ip"] == "127.0.0.1", (name, port)


def test_production_publishes_no_service():
    """Not even on loopback: what proxies there are share its network."""
    for files in (PROD, NGINX):
        assert not merged(*files)["services"]["sd-api"].get("ports")


def test_the_quick_start_is_what_is_promised():
    """One GPU, the first one; two images at once; Stable Diffusion 1.5; ./models; loopback."""
    service = merged(*BASE)["services"]["sd-api"]
    assert service["build"]["args"] == {"TORCH": "cu126"}
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    chosen = settings(service)
    assert chosen.cuda_visible_devices == "0"
    assert chosen.max_concurrent_requests == 2
    assert chosen.log_level == "INFO"
    assert chosen.model_id == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    (port,) = service["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", 8000)
    assert {mount["source"]: mount["target"] for mount in service["volumes"]} == {
        str(ROOT / "models"): "/models",
        "data": "/data",
    }
    assert (ROOT / "models").is_dir(), "an engine would make it, for root"


def test_a_file_of_settings_reaches_the_service(tmp_path):
    """What scripts/optimize_gtx1060.py writes is what the service runs with; without it nothing."""
    best = {
        "DTYPE": "float16",
        "ATTENTION_SLICING": "true",
        "CPU_OFFLOAD": "model",
        "VAE_TILING": "true",
        "VAE_TILING_ABOVE": "512",
        "MAX_CONCURRENT_REQUESTS": "1",
    }
    text = env_text(best, "a card: 1.0 s, $5 # and 'quotes'\n| a |\n| b |")
    (tmp_path / "gtx1060.env").write_text(text, encoding="utf-8")
    given = ("--env-file", str(tmp_path / "gtx1060.env"))
    for files in (BASE, PROD):
        environment = merged(*given, *files)["services"]["sd-api"]["environment"]
        assert {name: environment[name] for name in best} == best
        plain = settings(merged(*files)["services"]["sd-api"])
        assert (plain.dtype, plain.max_concurrent_requests) == ("auto", 2)
    profile = settings(merged(*BASE, PROFILE="6gb", VRAM_LIMIT_GB="6")["services"]["sd-api"])
    assert (profile.vae_tiling_above, profile.vram_limit_gb) == (512, 6)


def test_without_a_gpu_the_demo_model_runs_alone():
    """Named on the command line, the one service starts and no other with it."""
    service = merged(*CPU)["services"]["sd-api-cpu"]
    assert service["build"]["args"] == {"TORCH": "cpu"}
    assert "deploy" not in service
    chosen = settings(service)
    assert (chosen.model_id, chosen.device, chosen.cuda_visible_devices) == ("demo", "cpu", "")
    assert "depends_on" not in service
    assert "sd-api-cpu" not in merged(*BASE)["services"]


@pytest.mark.parametrize("name", ["sd-api", "sd-api-cpu"])
def test_prometheus_reaches_the_service_by_its_name(name):
    """The address in its list is one of the network, and the service answers to it."""
    (group,) = yaml.safe_load((ROOT / "monitoring/targets/compose/sd-api.yml").read_text())
    (target,) = group["targets"]
    host, port = target.split(":")
    service = merged(*CPU, *MONITORING)["services"][name]
    called = {name, *((service["networks"]["default"] or {}).get("aliases", []))}
    assert host in called
    assert host in settings(service).allowed_hosts
    assert int(port) == settings(service).api_port


def test_production_wants_keys():
    """They come from a file that is a secret; without one the service refuses to start."""
    found = merged(*PROD)
    service = found["services"]["sd-api"]
    assert not settings(service).allow_unauthenticated
    (secret,) = service["secrets"]
    assert settings(service).api_keys_file == secret["target"]
    assert found["secrets"][secret["source"]]["file"] == str(ROOT / "keys.txt")
    with pytest.raises(ConfigError, match="no API keys are set"):
        binding.check(settings({"environment": service["environment"] | {"API_KEYS_FILE": ""}}))


@pytest.mark.parametrize("name", ["sd-api", "nginx"])
def test_production_is_bounded_and_comes_back(name):
    """Limits to memory, processor and log; started again after a crash or a reboot."""
    service = merged(*NGINX)["services"][name]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


def test_production_keeps_jobs_and_models_in_volumes():
    """Named ones, which stay when containers are made anew."""
    found = merged(*PROD)
    mounts = found["services"]["sd-api"]["volumes"]
    assert {mount["type"] for mount in mounts} == {"volume"}
    assert {mount["source"] for mount in mounts} <= found["volumes"].keys()
    assert found["services"]["sd-api"]["deploy"]["resources"]["reservations"]["devices"]


def test_nginx_alone_is_believed():
    """Its address is fixed and the only one in TRUSTED_PROXIES."""
    found = merged(*NGINX)
    address = found["services"]["nginx"]["networks"]["edge"]["ipv4_address"]
    believed = settings(found["services"]["sd-api"]).trusted_proxies
    assert [str(network) for network in believed] == [f"{address}/32"]
    assert found["services"]["sd-api"]["networks"].keys() == {"default", "edge"}


@pytest.mark.parametrize("variables", [{}, {"EDGE_PREFIX": "10.1.2"}])
def test_no_address_is_given_out_twice(variables):
    """An engine takes the first free one of the range, and the service starts before nginx."""
    found = merged(*NGINX, **variables)
    (pool,) = found["networks"]["edge"]["ipam"]["config"]
    subnet, given_out = (ipaddress.IPv4Network(pool[name]) for name in ("subnet", "ip_range"))
    joined = [found["services"][name]["networks"]["edge"] for name in ("nginx", "sd-api")]
    fixed = [pool["gateway"], *(each["ipv4_address"] for each in joined)]
    addresses = {ipaddress.IPv4Address(text) for text in fixed}
    assert len(addresses) == len(fixed)
    assert given_out.subnet_of(subnet)
    assert all(address in subnet and address not in given_out for address in addresses)
    assert all(text.startswith(variables.get("EDGE_PREFIX", "172.30.83.")) for text in fixed)


def test_nginx_does_not_wait_for_a_first_download():
    """Compose gives up on whoever waits for the health of a service that takes too long."""
    waits = merged(*NGINX)["services"]["nginx"]["depends_on"]["sd-api"]
    assert waits["condition"] == "service_started"


@pytest.mark.parametrize(("port", "expected"), [("", ""), ("8443", ":8443")])
def test_plain_http_is_sent_to_the_port_that_has_tls(port, expected):
    """Also where it is not the usual one."""
    nginx = merged(*NGINX, HTTPS_PORT=port)["services"]["nginx"]
    assert nginx["environment"]["REDIRECT_PORT"] == expected
    assert (port or "443") in {each["published"] for each in nginx["ports"]}


@pytest.mark.parametrize("options", [BASE, CPU, PROD])
def test_settings_of_ones_own_reach_the_service(options, tmp_path):
    """From sd-api.env beside the files, and those of the guide from the command line."""
    for path in ROOT.glob("docker-compose*.yml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "compose.env").write_bytes((ROOT / "deploy/compose.env").read_bytes())
    own = ["RATE_LIMIT_PER_MINUTE=30", "HF_HUB_OFFLINE=1", "DTYPE=float32"]
    (tmp_path / "sd-api.env").write_text("\n".join(own))
    given = {"PROFILE": "6gb", "MAX_CONCURRENT_REQUESTS": "1", "LOG_LEVEL": "DEBUG"}
    found = merged(*options, root=tmp_path, TORCH="cuda", **given)["services"]
    for name in found.keys() & {"sd-api", "sd-api-cpu"}:
        environment = found[name]["environment"]
        assert environment["HF_HUB_OFFLINE"] == "1"
        chosen = settings({"environment": environment})
        assert (chosen.rate_limit_per_minute, chosen.profile) == (30, "6gb")
        assert (chosen.dtype, chosen.vae_tiling_above) == ("float32", 512)
        assert (chosen.max_concurrent_requests, chosen.log_level) == (1, "DEBUG")
    assert found["sd-api"]["image"] == "sd-api:cuda"
    assert found["sd-api"]["build"]["args"] == {"TORCH": "cuda"}


@pytest.mark.parametrize("hosts", ["", "images.example"])
def test_prometheus_is_let_in_beside_names_of_ones_own(hosts):
    """ALLOWED_HOSTS of production keeps the name that it is scraped by."""
    chosen = settings(merged(*PROD, ALLOWED_HOSTS=hosts)["services"]["sd-api"])
    assert bool(chosen.allowed_hosts) == bool(hosts)
    assert not hosts or {"sd-api", hosts} == {str(host) for host in chosen.allowed_hosts}


def test_nginx_fits_the_limits_of_the_service():
    """It takes the same bodies, and waits longer than the service lets a request live."""
    found = merged(*NGINX)
    given = found["services"]["nginx"]["environment"]
    chosen = settings(found["services"]["sd-api"])
    assert given["BODY_LIMIT"] == f"{chosen.max_body_bytes // 1024}k"
    megabytes = float(given["IMAGE_BODY_LIMIT"].removesuffix("m"))
    assert megabytes * 2**20 > body_bytes(chosen)
    assert float(given["ANSWER_SECONDS"]) > chosen.request_timeout_seconds
    assert given["UPSTREAM_SERVERS"] == f"server sd-api:{chosen.api_port} max_fails=0;"
    assert given.keys() == words().keys()
    (mount,) = found["services"]["nginx"]["volumes"]
    assert Path(mount["source"]).is_dir()


def test_nginx_wants_to_know_its_name():
    """No name, no start: a certificate is for a name."""
    done = composed(*NGINX, without="SERVER_NAME")
    assert done.returncode != 0
    assert "SERVER_NAME" in done.stderr


def test_nginx_without_production_still_wants_keys():
    """Whoever leaves the middle file out is refused, not exposed."""
    found = merged(*BASE, "-f", "docker-compose.nginx.yml")
    service = found["services"]["sd-api"]
    assert not service.get("ports")
    with pytest.raises(ConfigError, match="no API keys are set"):
        binding.check(settings(service))


def test_nothing_here_is_pushed_anywhere():
    """Images are made where they run: none has a registry in its name, nothing uploads one."""
    images = {service["image"] for service in merged(*CPU)["services"].values()}
    assert images == {"sd-api:cu126", "sd-api:cpu"}
    pushing = re.compile(r"docker (?:compose )?push|--push\b|twine upload|npm publish")
    for name in ("Makefile", ".ci/run", "Dockerfile"):
        assert not pushing.search((ROOT / name).read_text(encoding="utf-8"))
