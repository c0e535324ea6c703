"""What a panel needs of Prometheus: instant and range queries, exemplars, scrape interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

from dashboards.substitution import seconds

TIMEOUT_SECONDS: Final = 30.0


class QueryFailed(Exception):
    """The text is what Prometheus said, or that it said nothing."""


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A server under ``url``."""

    url: str

    def instant(self, expr: str, at: float) -> list[dict[str, Any]]:
        """Ask for the value of each series at one time; ``values`` has that one point.

        Raises:
            QueryFailed: the query is wrong, or the server is not there.

        """
        answer = self._ask("query", query=expr, time=f"{at:.3f}")
        if answer["resultType"] == "scalar":
            return [{"metric": {}, "values": [answer["result"]]}]
        return [
            {"metric": series["metric"], "values": [series["value"]]} for series in answer["result"]
        ]

    def over(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Ask for the values of each series every ``step`` seconds.

        Raises:
            QueryFailed: the query is wrong, or the server is not there.

        """
        answer = self._ask(
            "query_range", query=expr, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:.3f}"
        )
        series: list[dict[str, Any]] = answer["result"]
        return series

    def exemplars(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Ask for single observations behind a query, each as its time and value.

        None where the server does not store them: an image is complete without.
        """
        try:
            found = self._ask("query_exemplars", query=expr, start=f"{start:.3f}", end=f"{end:.3f}")
        except QueryFailed:
            return []
        return [
            {"time": exemplar["timestamp"], "value": float(exemplar["value"])}
            for series in found
            for exemplar in series["exemplars"]
        ]

    def scrape_seconds(self) -> float:
        """Return the longest time between scrapes of any target.

        Raises:
            QueryFailed: the server is not there, or scrapes nothing.

        """
        targets = self._ask("targets", state="active")["activeTargets"]
        if not targets:
            raise QueryFailed(f"{self.url} scrapes nothing")
        return max(seconds(target["scrapeInterval"]) for target in targets)

    def _ask(self, what: str, **parameters: str) -> Any:
        url = f"{self.url.rstrip('/')}/api/v1/{what}"
        try:
            answer = requests.get(url, params=parameters, timeout=TIMEOUT_SECONDS)
            content: Mapping[str, Any] = answer.json()
        except requests.JSONDecodeError as error:
            raise QueryFailed(f"{url} is no Prometheus: status {answer.status_code}") from error
        except requests.RequestException as error:
            raise QueryFailed(f"no answer from {url}: {type(error).__name__}") from error
        if content.get("status") != "success":
            raise QueryFailed(content.get("error", f"status {answer.status_code}"))
        return content["data"]
