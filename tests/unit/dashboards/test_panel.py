"""A panel's JSON."""

from dashboards.kinds import table, tile
from dashboards.panel import GREEN, RED, Target, Word, Words, limit, mappings, override


def test_a_tile_asks_for_this_instant_and_for_what_stands_in_for_nothing() -> None:
    """The last value of a service that is gone must not stand there in green."""
    made = tile("Queue", "Is it full?", "short", Target(expr="sd_queue_depth{}")).json(7, 3, 0)
    (target,) = made["targets"]
    assert target["instant"]
    assert not target["range"]
    assert target["expr"] == "sd_queue_depth{}\nor vector(-4)"
    assert made["gridPos"] == {"h": 4, "w": 3, "x": 3, "y": 0}
    assert made["id"] == 7


def test_a_tile_that_names_its_own_stand_in_keeps_it() -> None:
    """Only what says nothing about emptiness is given something."""
    made = tile("Ready", "Is it?", "none", Target(expr="sd_ready{} or vector(-2)")).json(1, 0, 0)
    assert made["targets"][0]["expr"] == "sd_ready{} or vector(-2)"


def test_descriptions_name_the_metrics() -> None:
    """Each metric once, in the order of the queries."""
    target = Target(expr="sd_queue_depth{} / sd_queue_limit{} + sd_queue_depth{}")
    made = tile("Queue", "Is it full?", "percentunit", target).json(1, 0, 0)
    assert made["description"] == "Is it full?\n\nFrom: `sd_queue_depth`, `sd_queue_limit`"


def test_queries_are_lettered() -> None:
    """The first is A, the second B."""
    made = tile("Out", "?", "none", Target(expr="a"), Target(expr="b")).json(1, 0, 0)
    assert [target["refId"] for target in made["targets"]] == ["A", "B"]


def test_numbers_and_nan_become_words() -> None:
    """A number is a value mapping, NaN a special one."""
    words: Words = {
        -1: Word(text="No sensor", color=GREEN),
        "nan": Word(text="No traffic", color=RED),
    }
    assert mappings(words) == [
        {
            "type": "value",
            "options": {"-1": {"color": GREEN, "index": 0, "text": "No sensor"}},
        },
        {
            "type": "special",
            "options": {
                "match": "nan",
                "result": {"color": RED, "index": 1, "text": "No traffic"},
            },
        },
    ]


def test_overrides_match_by_name_or_expression() -> None:
    """A name between slashes is an expression."""
    assert override("limit", unit="s")["matcher"] == {"id": "byName", "options": "limit"}
    assert override("/ 5..$/", unit="s")["matcher"] == {"id": "byRegexp", "options": "/ 5..$/"}


def test_a_limit_is_a_dashed_line_outside_the_stack() -> None:
    """Stacked on what it limits it would be in the wrong place."""
    properties = {each["id"]: each["value"] for each in limit("limit")["properties"]}
    assert properties["custom.stacking"]["mode"] == "none"
    assert properties["custom.lineStyle"]["fill"] == "dash"
    assert properties["custom.fillOpacity"] == 0


def test_a_table_shows_the_named_labels_only() -> None:
    """Time and value are left out; the labels are columns in the order given."""
    made = table("Alerts", "?", {"severity": "Severity"}, Target(expr="ALERTS{}")).json(1, 0, 0)
    options = made["transformations"][0]["options"]
    assert options["excludeByName"] == {"Time": True, "Value": True}
    assert options["renameByName"] == {"severity": "Severity"}
    assert made["targets"][0]["format"] == "table"
