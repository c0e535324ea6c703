"""Queries of a dashboard with the variables filled in."""

import pytest

from dashboards import queries_of
from dashboards.substitution import seconds, substitute

DASHBOARD = {
    "panels": [
        {"type": "row", "title": "Row", "panels": []},
        {
            "type": "stat",
            "title": "Steps",
            "id": 4,
            "interval": "5m",
            "targets": [
                {
                    "refId": "A",
                    "expr": 'rate(sd_steps_total{job=~"$job"}[$__rate_interval])',
                    "legendFormat": "__auto",
                    "instant": True,
                    "format": "time_series",
                }
            ],
        },
        {
            "type": "row",
            "title": "Collapsed",
            "panels": [
                {
                    "type": "heatmap",
                    "title": "Ready",
                    "id": 5,
                    "targets": [
                        {
                            "refId": "A",
                            "expr": 'sd_ready{instance=~"${instance:regex}"}[$__rate_interval]',
                            "legendFormat": "{{le}}",
                            "instant": False,
                            "format": "heatmap",
                        }
                    ],
                }
            ],
        },
    ]
}


def test_queries_are_listed_with_all_a_caller_needs() -> None:
    """Panels of collapsed rows are among them; headings are not."""
    first, second = queries_of(DASHBOARD)
    assert (first.panel, first.panel_id, first.kind, first.ref) == ("Steps", 4, "stat", "A")
    assert (first.legend, first.instant, first.format) == ("", True, "time_series")
    assert (second.panel, second.legend, second.instant, second.format) == (
        "Ready",
        "{{le}}",
        False,
        "heatmap",
    )


def test_variables_and_the_rate_interval_are_filled_in_as_grafana_does() -> None:
    """A panel's shortest step lengthens its interval; else it is four scrapes."""
    assert [query.expr for query in queries_of(DASHBOARD)] == [
        'rate(sd_steps_total{job=~".+"}[315s])',
        'sd_ready{instance=~".+"}[60s]',
    ]


def test_scrape_and_step_set_the_rate_interval() -> None:
    """max(step + scrape, 4 scrapes)."""
    assert [query.expr.split("[")[1] for query in queries_of(DASHBOARD, scrape_seconds=1)] == [
        "301s])",
        "4s]",
    ]
    assert queries_of(DASHBOARD, step_seconds=120)[1].expr.endswith("[135s]")


def test_given_variables_come_first() -> None:
    """A drill with a scrape a second sets the interval of all panels."""
    given = {"__rate_interval": "20s", "job": "sd-api"}
    assert queries_of(DASHBOARD, given)[0].expr == 'rate(sd_steps_total{job=~"sd-api"}[20s])'


def test_an_unknown_variable_is_refused() -> None:
    """Left in place it would be asked for as it stands, and find nothing."""
    with pytest.raises(KeyError, match="threshold"):
        substitute("sd_ready > $threshold", {})


@pytest.mark.parametrize(
    ("duration", "expected"), [("250ms", 0.25), ("15s", 15), ("5m", 300), ("1h", 3600)]
)
def test_durations_are_read(duration, expected) -> None:
    """As Grafana writes them."""
    assert seconds(duration) == expected


def test_what_is_no_duration_is_refused() -> None:
    """Rather than taken for zero."""
    with pytest.raises(ValueError, match="no duration: 5 minutes"):
        seconds("5 minutes")
