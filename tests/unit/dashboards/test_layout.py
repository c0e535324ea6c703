"""Dashboards as whole pages: places, links, variables, annotations."""

import itertools
import json
from typing import Any

import pytest

from dashboards.generate import FOLDER
from dashboards.layout import WIDTH, Row, place
from dashboards.panel import Panel, Target
from dashboards.substitution import panels_of

NAMES = ("service", "gpu", "generation")


@pytest.fixture(params=NAMES)
def dashboard(request) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{request.param}.json").read_text())
    return loaded


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    columns = range(place["x"], place["x"] + place["w"])
    rows = range(place["y"], place["y"] + place["h"])
    return set(itertools.product(columns, rows))


def test_panels_do_not_overlap(dashboard) -> None:
    """Every panel has its own place within the width of the page."""
    for one, other in itertools.combinations(dashboard["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert all(column < WIDTH for panel in dashboard["panels"] for column, _ in cells(panel))


def test_rows_leave_no_holes(dashboard) -> None:
    """Each line of panels fills the width: no gap looks as if something were missing."""
    covered = set().union(*map(cells, dashboard["panels"]))
    bottom = max(row for _, row in covered)
    assert covered == set(itertools.product(range(WIDTH), range(bottom + 1)))


def test_ids_and_titles_are_unique(dashboard) -> None:
    """A link to a panel, and a finding about it, means one panel."""
    identities = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in panels_of(dashboard)]
    assert len(set(identities)) == len(identities)
    assert len(set(titles)) == len(titles)


def test_first_line_answers_whether_it_is_fine(dashboard) -> None:
    """The top of the page is tiles with colours, before anything that has to be read."""
    top = [panel for panel in dashboard["panels"] if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in top} == {"stat"}
    assert 6 <= len(top) <= 8
    for panel in top:
        assert panel["options"]["colorMode"] == "background"
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_descriptions_say_what_to_decide_and_from_which_metric(dashboard) -> None:
    """A description is a sentence or more, and names the metrics that are shown."""
    for panel in panels_of(dashboard):
        text = panel["description"]
        assert len(text) > 20
        if panel["type"] != "text":
            assert "\n\nFrom: `" in text


def test_dashboards_are_found_by_their_uid_and_tag(dashboard) -> None:
    """Alerts link to the uid; the tag makes the links between the dashboards."""
    assert dashboard["uid"] in {"sd-service", "sd-gpu", "sd-generation"}
    (link,) = dashboard["links"]
    assert link["type"] == "dashboards"
    assert link["includeVars"]
    assert link["keepTime"]
    assert set(link["tags"]) <= set(dashboard["tags"])


def test_page_settings(dashboard) -> None:
    """The last hour, refreshed by itself, with one cross-hair over all graphs."""
    assert dashboard["time"] == {"from": "now-1h", "to": "now"}
    assert dashboard["refresh"] == "30s"
    assert dashboard["graphTooltip"] == 1
    assert dashboard["schemaVersion"] == 39


def test_annotations_show_pages_restarts_and_loads(dashboard) -> None:
    """What happened is drawn over what followed from it."""
    assert [annotation["name"] for annotation in dashboard["annotations"]["list"]] == [
        "Pages",
        "Engine restarts",
        "Model loads",
        "Service starts",
    ]


def test_ratios_of_nothing_say_no_traffic(dashboard) -> None:
    """A tile shows NaN, which is 0 / 0, as what it means."""
    for panel in panels_of(dashboard):
        if panel["type"] == "stat":
            special = [
                mapping["options"]
                for mapping in panel["fieldConfig"]["defaults"]["mappings"]
                if mapping["type"] == "special"
            ]
            assert [each["match"] for each in special] == ["nan"]
            assert special[0]["result"]["text"] == "No traffic"


def panel(width: int, height: int = 8) -> Panel:
    return Panel(
        kind="timeseries",
        title="Ready",
        description="Is it?",
        targets=[Target(expr="sd_ready{}")],
        unit="none",
        options={},
        width=width,
        height=height,
    )


def test_panels_are_placed_from_the_left_and_wrap() -> None:
    """A panel that does not fit goes below the tallest of the line above."""
    rows = [Row(title="", panels=[panel(12), panel(12, 10), panel(6)]), Row(title="A", panels=[])]
    places = [placed["gridPos"] for placed in place(rows)]
    assert places == [
        {"h": 8, "w": 12, "x": 0, "y": 0},
        {"h": 10, "w": 12, "x": 12, "y": 0},
        {"h": 8, "w": 6, "x": 0, "y": 10},
        {"h": 1, "w": 24, "x": 0, "y": 18},
    ]
