"""What a rule is, and how it is written down for Prometheus."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from textwrap import dedent, indent
from typing import Final

from alerts.windows import Span

INSTANCE: Final = "{{ $labels.instance }}"
ENGINE: Final = (
    "{{ if $labels.engine }}Engine {{ $labels.engine }}{{ else }}The engine{{ end }} of " + INSTANCE
)
"""Beginning of a sentence; an earlier version of the service shows no label ``engine``."""
COUNT: Final = '{{ $value | printf "%.0f" }}'
"""What was counted; increase() extrapolates, so it is seldom whole."""


class Severity(StrEnum):
    """Who is told, and how soon."""

    PAGE = "page"
    """Someone must act now, at any hour."""
    TICKET = "ticket"
    """Someone must act in working hours."""
    INFO = "info"
    """Good to know when one looks."""
    NONE = "none"
    """For a machine alone."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A series that Prometheus works out; named ``level:metric:operations``."""

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A condition that someone should hear of.

    Two may share a name when they differ in severity: a symptom that gets worse.
    """

    name: str
    severity: Severity
    expr: str
    lasting: Span | None = None
    """How long the condition must hold; None is at once, for the reason in ``at_once``."""
    at_once: str = ""
    keeping: Span | None = None
    """How long it goes on firing after the condition ended."""
    summary: str
    description: str
    dashboard: str
    """Uid of the dashboard to look at first."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where annotations lead."""

    runbooks: str = "{{ $externalURL }}/user/runbooks"
    """Folder of the runbooks: Prometheus itself serves it (``--web.user-assets=alerts``)."""
    grafana: str = "http://127.0.0.1:3000"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are evaluated in order, each seeing the results of those before it."""

    name: str
    interval: Span
    rules: tuple[Recording | Alert, ...]


def write(groups: Iterable[Group], links: Links) -> str:
    """Return the rules as YAML."""
    return "groups:\n" + "\n".join(line for group in groups for line in (*_group(group, links), ""))


def _group(group: Group, links: Links) -> Iterator[str]:
    yield f"  - name: {group.name}"
    yield f"    interval: {group.interval}"
    yield "    rules:"
    for rule in group.rules:
        if isinstance(rule, Recording):
            yield f"      - record: {rule.name}"
            yield from _expression(rule.expr)
            yield from _mapping("labels", rule.labels)
        else:
            yield from _alert(rule, links)


def _alert(alert: Alert, links: Links) -> Iterator[str]:
    if alert.lasting is None:
        yield f"      # At once: {alert.at_once}"
    yield f"      - alert: {alert.name}"
    yield from _expression(alert.expr)
    if alert.lasting is not None:
        yield f"        for: {alert.lasting}"
    if alert.keeping is not None:
        yield f"        keep_firing_for: {alert.keeping}"
    yield from _mapping("labels", {"severity": alert.severity.value})
    yield from _mapping("annotations", annotations(alert, links))


def annotations(alert: Alert, links: Links) -> dict[str, str]:
    """Return what a person reads, and where it leads."""
    where = f"{links.grafana}/d/{alert.dashboard}"
    seen = "" if alert.severity is Severity.NONE else INSTANCE.replace(" }", " | urlquery }")
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{links.runbooks}/{alert.name}.md",
        "dashboard": f"{where}?var-instance={seen}" if seen else where,
    }


def _expression(expr: str) -> Iterator[str]:
    yield "        expr: |-"
    yield indent(dedent(expr).strip(), " " * 10)


def _mapping(key: str, values: Mapping[str, str]) -> Iterator[str]:
    if values:
        yield f"        {key}:"
    for name, value in values.items():
        # A JSON string is a YAML string, whatever it holds.
        yield f"          {name}: {json.dumps(value, ensure_ascii=False)}"
