"""Runs Prometheus' own tools, or says why not."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from promql_parser import parse

from tests.unit.alerts.vocabulary import selectors

ALERTS: Final = Path(__file__).parents[3] / "alerts"
GROUPS: Final = yaml.safe_load((ALERTS / "rules.yml").read_text(encoding="utf-8"))["groups"]
RULES: Final[list[dict[str, Any]]] = [rule for group in GROUPS for rule in group["rules"]]
NAMES: Final = sorted({rule["alert"] for rule in RULES if "alert" in rule})
ALWAYS: Final = {"SDWatchdog": "it fires always, that is what it is for"}


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip where the program is not installed."""
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (apt: {package})"
    )


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of an alert: more than one when it comes in several severities."""
    return [rule for rule in RULES if rule.get("alert") == name]


def read(name: str) -> dict[str, Any]:
    """Return tests/GROUP/NAME.yml."""
    (path,) = (ALERTS / "tests").glob(f"*/{name}.yml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def cases(name: str, kind: str) -> list[dict[str, Any]]:
    """Return an alert's cases of a kind: ``fires`` or ``quiet``."""
    return [case for case in read(name)["tests"] if case["name"].startswith(f"{kind}: ")]


def wrong(folder: Path, name: str, versions: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Run an alert's cases on versions of its rules; return those that a case fails.

    All in one run, each version under a name of its own. Rules that none of them reads are
    left out: both together make the difference between seconds and minutes.
    """
    alerts = [rule | {"alert": key} for key, version in versions.items() for rule in version]
    chosen = [
        case
        | {
            "alert_rule_test": [
                question | {"alertname": key}
                for question in case["alert_rule_test"]
                for key in versions
            ]
        }
        for case in read(name)["tests"]
    ]
    asked = [row["expr"] for case in chosen for row in case.get("promql_expr_test", ())]
    group = {"name": name, "rules": [*_read_by([rule["expr"] for rule in alerts] + asked), *alerts]}
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    path = folder / "test.yml"
    content = read(name) | {"rule_files": ["rules.yml"], "tests": chosen}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    finished = run("promtool", "test", "rules", path)
    failed = set(re.findall(r"alertname: (\w+),", finished.stdout + finished.stderr))
    assert failed <= set(versions), finished
    assert failed or finished.returncode == 0, finished
    return failed


def _read_by(expressions: list[str]) -> list[dict[str, Any]]:
    """Return the recording rules that expressions read, and those that these read."""
    pending, wanted = list(expressions), set[str]()
    recordings = [rule for rule in RULES if "record" in rule]
    while pending:
        names = {selector.name for selector in selectors(parse(pending.pop()))} - wanted
        wanted |= {name for name in names if name}
        pending += [rule["expr"] for rule in recordings if rule["record"] in names]
    return [rule for rule in recordings if rule["record"] in wanted]
