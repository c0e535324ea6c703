"""What an expression may speak of: the metrics of the service and what the rules record."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    UnaryExpr,
    VectorMatchCardinality,
    VectorSelector,
    parse,
)

from service.engine.ray.metrics import STATUSES
from service.gpu.nvml import ECC_KINDS, THROTTLE_REASONS
from service.telemetry.labels import ENGINE_STATES
from service.telemetry.metrics import Metrics
from tests.support.monitoring.answers import ANSWERS

TARGET: Final = frozenset({"job", "instance"})
"""Labels that Prometheus adds to all it scrapes."""

MONITORING: Final = {
    "prometheus_rule_evaluation_failures_total": TARGET | {"rule_group"},
    "prometheus_notifications_dropped_total": TARGET,
    "prometheus_notifications_errors_total": TARGET | {"alertmanager"},
    "prometheus_config_last_reload_successful": TARGET,
    "alertmanager_notifications_failed_total": TARGET | {"integration"},
    "alertmanager_config_last_reload_successful": TARGET,
}
"""What Prometheus (2.42 and 3) and Alertmanager say of themselves."""


@cache
def scraped() -> dict[str, frozenset[str]]:
    """Return the labels of each series that the service can show, as it is scraped."""
    known = {"up": TARGET, "process_start_time_seconds": TARGET, **MONITORING}
    for definition in Metrics().definitions:
        labels = TARGET | set(definition.labels)
        if definition.kind == "histogram":
            known[f"{definition.name}_bucket"] = labels | {"le"}
            known[f"{definition.name}_count"] = known[f"{definition.name}_sum"] = labels
        else:
            known[definition.name] = labels
    return known


@cache
def label_values() -> dict[tuple[str, str], set[str]]:
    """Return the values of labels that are known beforehand, by series and label."""
    known: dict[tuple[str, str], set[str]] = {}
    for family in Metrics().registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                known.setdefault((sample.name, label), set()).add(value)
    known["sd_engine_state", "state"] = set(ENGINE_STATES)
    known["sd_cluster_engines", "status"] = set(STATUSES)
    known["sd_gpu_throttled", "reason"] = set(THROTTLE_REASONS)
    known["sd_gpu_ecc_errors_total", "kind"] = set(ECC_KINDS)
    # service/telemetry/metrics.py names these three in the metric's help.
    known["sd_engine_gpu_memory_bytes", "kind"] = {"allocated", "reserved", "peak"}
    for label, values in ANSWERS.items():
        patterns = {"4..", "5.."} if label == "status" else set()
        known["sd_http_requests_total", label] = values | patterns
    known["sd_model_info", "device"] = {"cpu", "cuda"}
    return known


def recorded(rules: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    """Return the labels of each series that the rules record."""
    known = dict(scraped())
    made = {}
    for rule in rules:
        if "record" in rule:
            labels = surviving(parse(rule["expr"]), known) | set(rule.get("labels", ()))
            made[rule["record"]] = known[rule["record"]] = frozenset(labels)
    return made


def selectors(expr: Expr) -> Iterator[VectorSelector]:
    """Return every selector of an expression."""
    match expr:
        case VectorSelector():
            yield expr
        case MatrixSelector():
            yield expr.vector_selector
        case BinaryExpr():
            yield from selectors(expr.lhs)
            yield from selectors(expr.rhs)
        case Call():
            for argument in expr.args:
                yield from selectors(argument)
        case AggregateExpr() | ParenExpr() | UnaryExpr():
            yield from selectors(expr.expr)
        case NumberLiteral() | StringLiteral():
            pass
        case _:
            raise AssertionError(f"nobody has said what {type(expr)} selects")


def fixed_values(selector: VectorSelector) -> Iterator[tuple[str, str]]:
    """Return the labels and values that a selector asks for or leaves out."""
    for matcher in selector.matchers.matchers:
        if matcher.op in (MatchOp.Re, MatchOp.NotRe):
            yield from ((matcher.name, value) for value in matcher.value.split("|"))
        else:
            yield matcher.name, matcher.value


def surviving(expr: Expr, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """Return the labels that every result of an expression has."""
    match expr:
        case VectorSelector() | MatrixSelector():
            (selector,) = selectors(expr)
            labels = known[selector.name or ""]
        case ParenExpr() | UnaryExpr():
            labels = surviving(expr.expr, known)
        case AggregateExpr():
            labels = frozenset(expr.modifier.labels if expr.modifier else ())
        case Call():
            labels = _of_call(expr, known)
        case BinaryExpr():
            labels = _of_operation(expr, known)
        case _:
            labels = frozenset()
    return labels


def _of_call(call: Call, known: dict[str, frozenset[str]]) -> frozenset[str]:
    if call.func.name in {"time", "vector"}:
        return frozenset()
    if call.func.name == "absent":
        (selector,) = selectors(call.args[0])
        return frozenset(name for name, _ in fixed_values(selector))
    if call.func.name == "label_replace":
        return surviving(call.args[0], known) | {call.args[1].val}
    vectors = [argument for argument in call.args if not isinstance(argument, NumberLiteral)]
    lost = {"le"} if call.func.name == "histogram_quantile" else set()
    return surviving(vectors[0], known) - lost


def _of_operation(operation: BinaryExpr, known: dict[str, frozenset[str]]) -> frozenset[str]:
    left, right = surviving(operation.lhs, known), surviving(operation.rhs, known)
    if str(operation.op) == "or":
        return left & right
    if str(operation.op) in {"and", "unless"} or isinstance(operation.rhs, NumberLiteral):
        return left
    if not left:  # A number or time().
        return right
    modifier = operation.modifier
    if modifier is None or modifier.matching is None:
        return left
    if modifier.card == VectorMatchCardinality.OneToOne:
        named = frozenset(modifier.matching.labels)
        return named if "Include" in str(modifier.matching.type) else left - named
    return left


def template_labels(text: str) -> set[str]:
    """Return the labels that a template speaks of."""
    return set(re.findall(r"\$labels\.(\w+)", text))
