"""Expressions with one thing wrong, of which a good test must notice each."""

from collections.abc import Iterator
from typing import Final

from promql_parser import BinaryExpr, Expr, ParenExpr, parse

NEVER: Final = "unless on () vector(1)"
OPERATORS: Final = {"and", "or", "unless"}
COMPARISONS: Final = {"==", "!=", ">", "<", ">=", "<="}


def dead(expr: str) -> Iterator[str]:
    """Return the expression with each of its branches in turn made impossible."""
    branches = list(_branches(parse(expr)))
    for index in range(len(branches)):
        yield " or ".join(
            f"({branch} {NEVER})" if place == index else f"({branch})"
            for place, branch in enumerate(branches)
        )


def lax(expr: str) -> Iterator[str]:
    """Return the expression without each of its conditions in turn."""
    return _without(parse(expr))


def _branches(expr: Expr) -> Iterator[str]:
    if isinstance(expr, BinaryExpr) and str(expr.op) == "or":
        yield from _branches(expr.lhs)
        yield from _branches(expr.rhs)
    else:
        yield str(expr)


def _without(expr: Expr) -> Iterator[str]:
    if isinstance(expr, ParenExpr):
        yield from (f"({inner})" for inner in _without(expr.expr))
    elif isinstance(expr, BinaryExpr) and str(expr.op) in OPERATORS:
        left, right = str(expr.lhs), str(expr.rhs)
        between = str(expr)[len(left) : -len(right)]
        yield from (left_ + between + right for left_ in _without(expr.lhs))
        yield from (left + between + right_ for right_ in _without(expr.rhs))
        if str(expr.op) != "or":
            yield left
    elif isinstance(expr, BinaryExpr) and str(expr.op) in COMPARISONS:
        # time() - x < 900: without the comparison any age will do.
        yield str(expr.lhs)
