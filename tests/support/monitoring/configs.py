"""The shipped configuration, with only targets, intervals and addresses of receivers changed."""

from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[3]
PROMETHEUS: Final = ROOT / "monitoring" / "prometheus.yml"
ALERTMANAGER: Final = ROOT / "alerts" / "alertmanager.yml"

LOOKED_UP: Final = "dns_sd_configs"
"""Exporters that are found by name; the drill has none, and asks no name server."""


def write_prometheus(
    folder: Path, *, rules: str, service: str, own: str, alertmanager: str, seconds: int
) -> Path:
    """Write the configuration and all that it refers to, laid out as in the repository.

    Its relative paths so hold without a change. ``service``, ``own`` and ``alertmanager`` are
    addresses, ``seconds`` the interval of scrapes and evaluations.
    """
    config: dict[str, Any] = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    config["global"] |= {
        "scrape_interval": f"{seconds}s",
        "scrape_timeout": f"{min(seconds, 10)}s",
        "evaluation_interval": f"{seconds}s",
    }
    path = folder / PROMETHEUS.relative_to(ROOT)
    targets = {"prometheus": own, "alertmanager": alertmanager}
    for job in config["scrape_configs"]:
        if LOOKED_UP in job:
            job[LOOKED_UP] = []
        if job["job_name"] in targets:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    _write(path, config)
    _write(path.parent / "targets" / "sd-api.yml", [{"targets": [service]}])
    for job in config["scrape_configs"]:
        if "authorization" in job:
            (path.parent / job["authorization"]["credentials_file"]).touch()
    (path.parent / config["rule_files"][0]).resolve().write_text(rules, encoding="utf-8")
    return path


def write_alertmanager(folder: Path, *, webhook: str, wait: str, repeat: str) -> frozenset[str]:
    """Write the configuration with every receiver at ``webhook``, which ends in a slash.

    Routes and inhibition rules stay as they are; only their intervals change. Returns the
    receivers that are told of the end of an alert, too.
    """
    config: dict[str, Any] = yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))
    _hasten(config["route"], wait=wait, repeat=repeat)
    tells_end = set()
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = webhook + receiver["name"]
            if hook["send_resolved"]:
                tells_end.add(receiver["name"])
    _write(folder / ALERTMANAGER.relative_to(ROOT), config)
    return frozenset(tells_end)


def _hasten(route: dict[str, Any], *, wait: str, repeat: str) -> None:
    route |= {"group_wait": wait, "group_interval": wait, "repeat_interval": repeat}
    for child in route.get("routes", []):
        _hasten(child, wait=wait, repeat=repeat)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
