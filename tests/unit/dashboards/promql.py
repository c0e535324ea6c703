"""Ways through a parsed query, for the tests of the dashboards."""

from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser as promql

from dashboards.substitution import panels_of, substitute
from tests.unit.dashboards.vocabulary import Known

STAND_INS = {
    "job": "$job",
    "instance": "$instance",
    "engine": "$engine",
    "__rate_interval": "311s",
    "__range": "367s",
    "__interval": "373s",
}
"""Durations that nobody would write: where one is found, the variable stood."""

RATE_INTERVAL = 311

SIGNS = {
    "MatchOp.Equal": "=",
    "MatchOp.NotEqual": "!=",
    "MatchOp.Re": "=~",
    "MatchOp.NotRe": "!~",
}


def parse(expr: str) -> Any:
    """Parse a query of a dashboard, whose variables no parser knows.

    Raises:
        ValueError: it is no PromQL, or names an unknown variable.

    """
    try:
        return promql.parse(substitute(expr, STAND_INS))
    except KeyError as error:
        raise ValueError(f"unknown variable {error}") from error


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Go through all queries, each with its panel."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield panel, target


def nodes(expr: Any, *above: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Go through all parts of a query, each with those that it is a part of."""
    yield expr, above
    match expr:
        case promql.BinaryExpr():
            inner = [expr.lhs, expr.rhs]
        case promql.Call():
            inner = list(expr.args)
        case promql.MatrixSelector():
            inner = [expr.vector_selector]
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            inner = [expr.expr]
        case promql.SubqueryExpr():
            inner = [expr.expr]
        case _:
            inner = []
    for part in inner:
        yield from nodes(part, *above, expr)


def selectors(expr: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Go through the selectors of a query."""
    for node, above in nodes(expr):
        if isinstance(node, promql.VectorSelector):
            yield node, above


def matchers(selector: Any) -> list[tuple[str, str, str]]:
    """List label, operator and value."""
    return [
        (matcher.name, SIGNS[str(matcher.op)], matcher.value)
        for matcher in selector.matchers.matchers
    ]


def function_over(above: tuple[Any, ...]) -> str:
    """Return the function that a range selector's series go into, or nothing."""
    if len(above) >= 2 and isinstance(above[-1], promql.MatrixSelector):
        call = above[-2]
        if isinstance(call, promql.Call):
            return str(call.func.name)
    return ""


def labels(expr: Any, known: Mapping[str, Known]) -> set[str]:
    """Return the labels that the result of ``expr`` can have."""
    found: set[str] = set()
    match expr:
        case promql.VectorSelector():
            found = set(known[expr.name or ""].labels)
        case promql.MatrixSelector():
            found = labels(expr.vector_selector, known)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            found = labels(expr.expr, known)
        case promql.AggregateExpr() if expr.modifier is not None:
            found = set(expr.modifier.labels)
        case promql.BinaryExpr():
            found = _labels_of_both(expr, known)
        case promql.Call() if expr.func.name == "label_replace":
            found = labels(expr.args[0], known) | {expr.args[1].val}
        case promql.Call() if expr.func.name == "histogram_quantile":
            found = labels(expr.args[1], known) - {"le"}
        case promql.Call() if expr.args:
            found = labels(expr.args[0], known)
    return found


def scalar(expr: Any) -> bool:
    """Say whether ``expr`` is a number and no series."""
    match expr:
        case promql.NumberLiteral():
            return True
        case promql.ParenExpr() | promql.UnaryExpr():
            return scalar(expr.expr)
        case promql.BinaryExpr():
            return scalar(expr.lhs) and scalar(expr.rhs)
        case promql.Call():
            return bool(expr.func.name == "time")
        case _:
            return False


def _labels_of_both(expr: Any, known: Mapping[str, Known]) -> set[str]:
    left, right = labels(expr.lhs, known), labels(expr.rhs, known)
    if str(expr.op) == "or":
        return left | right
    if scalar(expr.lhs):
        return right
    modifier = expr.modifier
    if scalar(expr.rhs) or str(expr.op) in {"and", "unless"} or modifier is None:
        return left
    if "ManyToOne" in str(modifier.card):
        return left | set(modifier.group_labels or ())
    if modifier.matching is None:
        return left
    listed = set(modifier.matching.labels)
    return listed if "Include" in str(modifier.matching.type) else left - listed
