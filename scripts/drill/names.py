"""Whether every metric and label that dashboards and alerts name was scraped."""

import json
from collections.abc import Iterator
from typing import Any, Final

import promql_parser
import yaml

from dashboards.generate import files
from dashboards.substitution import queries_of
from scripts.drill.stack import Stack
from service.telemetry.metrics import Metrics

NOT_HERE: Final = {
    # What torch says of a GPU; the stand-in is for the driver, and no torch computes on it.
    "sd_engine_gpu_memory_bytes": "needs a real GPU",
    # It would be measured again at each of the drill's many starts of an engine.
    "sd_batch_calibrated": "needs BATCH_CALIBRATION",
}
"""Metrics that no drill has, and why not."""


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield where a query of the dashboards is, and the query."""
    for name, text in files().items():
        for query in queries_of(json.loads(text)):
            yield f"{name}: {query.panel} {query.ref}", query.expr


def rule_queries(rules: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the expression of every rule."""
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Go through all selectors of a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector
    for part in _parts(expression):
        yield from selectors(part)


def groupings(expression: Any) -> Iterator[tuple[list[str], Any]]:
    """Go through the labels that aggregations keep, each with what is aggregated."""
    if isinstance(expression, promql_parser.AggregateExpr):
        kept = expression.modifier
        if kept is not None and kept.type == promql_parser.AggModifierType.By:
            yield list(kept.labels), expression.expr
    for part in _parts(expression):
        yield from groupings(part)


def _parts(expression: Any) -> Iterator[Any]:
    for name in ("lhs", "rhs", "expr", "param"):
        if (part := getattr(expression, name, None)) is not None:
            yield part
    yield from getattr(expression, "args", ())


class Names:
    """The labels of each metric that Prometheus holds."""

    def __init__(self, stack: Stack, since: float) -> None:
        self._stack = stack
        self._since = since
        self._labels: dict[str, frozenset[str]] = {}
        self._defined = {each.name: each for each in Metrics().definitions}

    async def problems(self, queries: Iterator[tuple[str, str]]) -> list[str]:
        """Return what is named but was never there, with where it is named."""
        found = []
        for where, query in queries:
            expression = promql_parser.parse(query)
            for selector in selectors(expression):
                known = await self._known(str(selector.name))
                if not known:
                    found.append(f"{where}: no metric {selector.name}")
                    continue
                named = {matcher.name for matcher in selector.matchers.matchers}
                found += [
                    f"{where}: {selector.name} has no label {label}"
                    for label in sorted(named - known)
                ]
            for labels, inner in groupings(expression):
                there: set[str] = set()
                for selector in selectors(inner):
                    there |= await self._known(str(selector.name))
                found += [
                    f"{where}: by {label}: no such label" for label in labels if label not in there
                ]
        return sorted(set(found))

    async def _known(self, name: str) -> frozenset[str]:
        if name not in self._labels:
            labels = await self._stack.ask(
                "labels", **{"match[]": f'{{__name__="{name}"}}', "start": str(self._since)}
            )
            if not labels and name in NOT_HERE:
                labels = ["job", "instance", *self._defined[name].labels]
            self._labels[name] = frozenset(labels)
        return self._labels[name]
