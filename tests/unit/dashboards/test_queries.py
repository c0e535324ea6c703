"""Every query of the dashboards asks for what the service and the rules really have."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest

from dashboards.generate import FOLDER
from dashboards.substitution import panels_of
from tests.unit.dashboards.promql import (
    function_over,
    labels,
    matchers,
    nodes,
    parse,
    scalar,
    selectors,
    targets,
)
from tests.unit.dashboards.vocabulary import Known, rules, vocabulary

DASHBOARDS = {
    name: json.loads((FOLDER / f"{name}.json").read_text())
    for name in ("service", "gpu", "generation")
}
ASKED = [
    (panel, target, parse(target["expr"]))
    for dashboard in DASHBOARDS.values()
    for panel, target in targets(dashboard)
]
ANNOTATIONS = DASHBOARDS["service"]["annotations"]["list"]
GROWTHS = {"rate", "irate", "increase"}

NOT_SHOWN = {
    "sd_job_last_finished_timestamp_seconds": "means nothing while nothing is asked for",
    "sd_oom_last_timestamp_seconds": "for the alert on the first one; the counter is shown",
    "sd_build_info": "what the variables are chosen from",
}


@pytest.fixture(scope="module")
def known() -> dict[str, Known]:
    return vocabulary()


def unknown(expr: Any, known: dict[str, Known]) -> Iterator[str]:
    """Go through the names, labels and values of a query that nobody knows."""
    for selector, _ in selectors(expr):
        if selector.name not in known:
            yield selector.name
            continue
        name = known[selector.name]
        for label, sign, value in matchers(selector):
            if label not in name.labels:
                yield f"{selector.name}{{{label}}}"
            given = name.values.get(label, set())
            for part in value.split("|") if "~" in sign else [value]:
                pattern = part if "~" in sign else re.escape(part)
                if part[0] != "$" and not any(re.fullmatch(pattern, each) for each in given):
                    yield f'{selector.name}{{{label}="{part}"}}'


def test_names_labels_and_values_exist(known) -> None:
    """A query names only metrics, labels and label values that there are."""
    found = [(panel["title"], *unknown(expr, known)) for panel, _, expr in ASKED]
    assert [finding for finding in found if len(finding) > 1] == []


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda annotation: annotation["name"])
def test_annotations_ask_for_what_exists(annotation, known) -> None:
    """So do the queries of the annotations, and what they write beside them."""
    expr = parse(annotation["expr"])
    written = re.findall(r"{{(\w+)}}", annotation["titleFormat"] + annotation["textFormat"])
    assert list(unknown(expr, known)) == []
    assert set(written) <= labels(expr, known)


@pytest.mark.parametrize(
    ("spoilt", "finding"),
    [
        ("sd_redy", ["sd_redy"]),
        ("sd_ready{gpu='1'}", ["sd_ready{gpu}", 'sd_ready{gpu="1"}']),
        ("sd_jobs_total{outcome='done'}", ['sd_jobs_total{outcome="done"}']),
        ("sd_jobs_total{outcome=~'failed|lost'}", ['sd_jobs_total{outcome="lost"}']),
        ("sd_queue_wait_seconds_bucket{le='30'}", ['sd_queue_wait_seconds_bucket{le="30"}']),
        ("ALERTS{alertname='SDNothing'}", ['ALERTS{alertname="SDNothing"}']),
        ("slo:objective:ratio{sloth_slo='speed'}", ['slo:objective:ratio{sloth_slo="speed"}']),
    ],
)
def test_unknown_names_labels_and_values_are_found(spoilt, finding, known) -> None:
    """What does not exist is found, whether name, label or value."""
    assert list(unknown(parse(spoilt), known)) == finding


def test_what_an_engine_measures_keeps_to_the_engines_chosen(known) -> None:
    """All engines match, and the series of a version that has no label ``engine``."""
    found = [
        (panel["title"], selector.name)
        for panel, _, expr in ASKED
        for selector, _ in selectors(expr)
        if (selector.name or "").startswith("sd_")
        and ("engine" in known[selector.name].labels)
        is not (("engine", "=~", "$engine") in matchers(selector))
    ]
    assert found == []
    for dashboard in DASHBOARDS.values():
        chosen = {row["name"]: row for row in dashboard["templating"]["list"]}["engine"]
        assert (chosen["allValue"], chosen["includeAll"], chosen["multi"]) == (".*", True, True)


def test_growth_is_asked_of_counters(known) -> None:
    """rate() and increase() are over what only grows, and over nothing else."""
    found = [
        (panel["title"], selector.name)
        for panel, _, expr in ASKED
        for selector, above in selectors(expr)
        if function_over(above) in GROWTHS and not known[selector.name].counts
    ]
    assert found == []


def test_quantiles_are_over_rates_of_buckets() -> None:
    """histogram_quantile() gets the summed rates of buckets, with their bounds kept."""
    summed = [
        node.args[1]
        for _, _, expr in ASKED
        for node, _ in nodes(expr)
        if isinstance(node, promql.Call) and node.func.name == "histogram_quantile"
    ]
    assert len(summed) >= 10
    for each in summed:
        assert "le" in each.modifier.labels
        assert each.expr.func.name == "rate"
        assert each.expr.args[0].vector_selector.name.endswith("_bucket")


def test_groups_legends_and_columns_name_labels_that_are_left(known) -> None:
    """What is grouped by, and what a legend or a column shows, is still there."""
    found = []
    for panel, target, expr in ASKED:
        for node, _ in nodes(expr):
            if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
                found += [
                    (panel["title"], label)
                    for label in set(node.modifier.labels) - labels(node.expr, known)
                ]
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        shown |= {
            label
            for change in panel["transformations"]
            for label in change["options"]["indexByName"]
        }
        found += [(panel["title"], label) for label in shown - labels(expr, known)]
    assert found == []


def test_legends_show_gpus_by_the_beginning_of_their_uuid() -> None:
    """A full UUID fills the legend; what is left tells GPUs apart, and is found in the table."""
    shown = [
        expr
        for _, target, expr in ASKED
        if "{{gpu}}" in target["legendFormat"] and target["format"] != "table"
    ]
    assert len(shown) == 9
    for expr in shown:
        assert isinstance(expr, promql.Call)
        assert expr.func.name == "label_replace"
        label, short, source, pattern = (argument.val for argument in list(expr.args)[1:])
        assert (label, short, source) == ("gpu", "$1 $2", "gpu")
        full = "GPU-1f0c93aa-0b0e-5a0e-9d2c-3f4bd8a2f1c7"
        assert re.sub(pattern, r"\1 \2", full) == "GPU 1f0c93aa"
        assert re.fullmatch(pattern, "the first GPU") is None


def test_both_sides_of_an_operation_match(known) -> None:
    """Series with other labels never meet: such a division is empty for ever."""
    found = [
        (panel["title"], node.prettify())
        for panel, _, expr in ASKED
        for node, _ in nodes(expr)
        if isinstance(node, promql.BinaryExpr) and not _matches(node, known)
    ]
    assert found == []


def _matches(node: Any, known: dict[str, Known]) -> bool:
    if str(node.op) == "or" or scalar(node.lhs) or scalar(node.rhs):
        return True
    left, right = labels(node.lhs, known), labels(node.rhs, known)
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is None:
        return left == right
    listed = set(matching.labels)
    if "Include" in str(matching.type):
        return listed <= left & right
    return left - listed == right - listed


@pytest.mark.parametrize("expr", ["sd_ready / sd_gpu_lost", "sd_ready * on (gpu) sd_gpu_lost"])
def test_sides_that_never_match_are_found(expr, known) -> None:
    """The check itself can fail."""
    assert not _matches(parse(expr), known)


def test_tiles_show_one_value(known) -> None:
    """A tile's query gives one number now, and one in place of nothing at all."""
    tiles = [asked for asked in ASKED if asked[0]["type"] == "stat"]
    assert len(tiles) >= 24
    for _, target, expr in tiles:
        assert labels(expr, known) == set()
        assert target["instant"]
        assert "or vector(-" in target["expr"]


def test_latencies_over_time_carry_exemplars() -> None:
    """From a quantile over time a dot leads to one request."""
    found = [
        panel["title"]
        for panel, target, _ in ASKED
        if "histogram_quantile" in target["expr"] and not target["instant"]
        if not target["exemplar"]
    ]
    assert found == []


def test_every_metric_is_shown(known) -> None:
    """What is measured is shown somewhere, or there is a reason why not."""
    asked = {base(selector.name) for _, _, expr in ASKED for selector, _ in selectors(expr)}
    ours = {base(name) for name in known if name.startswith("sd_")}
    assert ours - asked == set(NOT_SHOWN)


def test_a_model_that_never_loaded_took_no_time_to_load() -> None:
    """Its absence has a word of its own, and that is no green one."""
    (panel,) = {
        panel["id"]: panel for panel, _, _ in ASKED if panel["title"] == "Model load duration"
    }.values()
    (words,) = (
        mapping["options"]
        for mapping in panel["fieldConfig"]["defaults"]["mappings"]
        if mapping["type"] == "value"
    )
    assert words["-1"]["text"] == "NOT LOADED"
    assert words["-1"]["color"] == "orange"
    assert "noValue" not in panel["fieldConfig"]["defaults"]


def base(series: str) -> str:
    return re.sub("_(bucket|sum|count)$", "", series)


def test_an_absent_reading_is_told_apart_from_a_broken_collection() -> None:
    """What shows a sensor knows each reason for which there may be no reading."""
    reasons = {"No sensor", "No GPU driver", "COLLECTION BROKEN", "TARGET DOWN"}
    shown = [
        (panel["title"], reasons - _words(panel))
        for panel, target, _ in ASKED
        if panel["type"] in {"stat", "state-timeline"} and "sd_gpu_collector_up" in target["expr"]
    ]
    assert len(shown) >= 12
    assert [(title, missing) for title, missing in shown if missing] == []


def _words(panel: dict[str, Any]) -> set[str]:
    return {
        result["text"]
        for mapping in panel["fieldConfig"]["defaults"]["mappings"]
        if mapping["type"] == "value"
        for result in mapping["options"].values()
    }


def test_emptiness_is_never_dressed_up() -> None:
    """In place of nothing no panel shows a number or a word that sounds fine."""
    shown = {
        panel["fieldConfig"]["defaults"].get("noValue", "")
        for dashboard in DASHBOARDS.values()
        for panel in panels_of(dashboard)
    }
    assert shown == {"", "No reading: see 'Available GPU readings'"}


def test_the_step_time_is_compared_as_the_alert_compares_it() -> None:
    """Same recorded series; work without a yesterday is not taken for no work."""
    (asked,) = (each for each in ASKED if each[0]["title"] == "Step time vs yesterday")
    panel, _, expr = asked
    (alert,) = (rule for rule in rules() if rule.get("alert") == "SDStepTimeRegressed")
    names = {selector.name for selector, _ in selectors(expr)}
    assert names < {selector.name for selector, _ in selectors(parse(alert["expr"]))}
    assert {"No yesterday", "No traffic", "NO DATA"} <= _words(panel)
