"""Grafana dashboards as code."""

from dashboards.substitution import Query, queries_of

__all__ = ["Query", "queries_of"]
