"""The rules: what they speak of exists, and what an alert says can be acted upon."""

import re

import pytest
from promql_parser import AggregateExpr, BinaryExpr, ParenExpr, parse

from alerts import generate, rules
from alerts.rule import Alert, Links
from tests.unit.alerts.mutants import COMPARISONS, OPERATORS
from tests.unit.alerts.programs import ALERTS, ALWAYS, RULES
from tests.unit.alerts.vocabulary import (
    fixed_values,
    label_values,
    recorded,
    scraped,
    selectors,
    surviving,
    template_labels,
)

AGREED = {
    "SDTargetDown",
    "SDServiceRestarting",
    "SDNotReady",
    "SDModelNotLoaded",
    "SDEngineRestarting",
    "SDEngineCircuitOpen",
    "SDEngineLost",
    "SDEnginesUnbalanced",
    "SDClusterDriverDown",
    "SDClusterHeadAway",
    "SDClusterEnginesMissing",
    "SDClusterLeasesLate",
    "SDOutOfMemory",
    "SDOutOfMemoryRepeated",
    "SDOutOfMemoryRecovered",
    "SDPicturesDoNotFit",
    "SDVramNearLimit",
    "SDAdaptersThrashing",
    "SDModelsThrashing",
    "SDClientsFailing",
    "SDQueueDepthHigh",
    "SDConnectionsHigh",
    "SDQueueWaitHigh",
    "SDQueueStuck",
    "SDErrorBudgetBurnFast",
    "SDErrorBudgetBurnSlow",
    "SDLatencyBudgetBurnFast",
    "SDLatencyBudgetBurnSlow",
    "SDStepTimeRegressed",
    "SDGpuHot",
    "SDGpuThrottled",
    "SDGpuLost",
    "SDGpuXid",
    "SDGpuEccErrors",
    "SDGpuCollectorBroken",
    "SDDiskFilling",
    "SDThreadsBusy",
    "SDJobStoreFailing",
    "SDKeptDataDamaged",
    "SDWebhooksFailing",
    "SDUploadsRefused",
    "SDComputesOnCpu",
    "SDLogLinesDropped",
    "SDMonitoringBroken",
    "SDWatchdog",
}
JOBS = {("job", name) for name in ("sd-api", "alertmanager", "node", "dcgm")}
KNOWN = scraped() | recorded(RULES)
ALERT_RULES = [rule for rule in RULES if "alert" in rule]
DEFINED = [rule for group in rules.groups() for rule in group.rules if isinstance(rule, Alert)]


def each(chosen):
    return pytest.mark.parametrize(
        "rule", chosen, ids=lambda rule: rule.get("alert") or rule["record"]
    )


def test_rules_yml_is_what_the_generator_writes():
    """Nobody has edited it by hand."""
    assert generate.main(["--check"]) == 0


def test_a_file_that_differs_is_noticed(tmp_path, capsys):
    """So is one that is not there; --check writes neither."""
    path = tmp_path / "rules.yml"
    assert generate.main(["--check", "--out", str(path)]) == 1
    assert not path.exists()
    path.write_text("groups: []\n", encoding="utf-8")
    assert generate.main(["--check", "--out", str(path)]) == 1
    assert path.read_text(encoding="utf-8") == "groups: []\n"
    assert "python -m alerts.generate" in capsys.readouterr().out


def test_links_lead_where_they_are_told_to(tmp_path):
    """For a Grafana with a name of its own, and runbooks kept elsewhere."""
    path = tmp_path / "rules.yml"
    links = ["--grafana", "https://grafana.example", "--runbooks", "https://wiki.example/sd"]
    assert generate.main(["--out", str(path), *links]) == 0
    assert path.read_text(encoding="utf-8") == rules.render(
        links=Links(grafana=links[1], runbooks=links[3])
    )
    assert '"https://wiki.example/sd/SDGpuHot.md"' in path.read_text(encoding="utf-8")


def test_the_alerts_are_those_agreed_upon():
    """Dashboards, drill and documents call them by these names."""
    assert {rule["alert"] for rule in ALERT_RULES} == AGREED


@each(RULES)
def test_a_rule_speaks_only_of_series_and_labels_that_there_are(rule):
    """A typing error in a name is no error to Prometheus: the alert would just never fire."""
    values = label_values()
    for selector in selectors(parse(rule["expr"])):
        assert selector.name in KNOWN
        for label, value in fixed_values(selector):
            assert label in KNOWN[selector.name], str(selector)
            if (selector.name, label) in values:
                assert value in values[selector.name, label], str(selector)
            else:
                assert (label, value) in JOBS or label.startswith("sloth_")


@each(RULES)
def test_a_counter_is_read_by_its_growth(rule):
    """Its level depends on when the service started; only whether it is above 0 is a fact."""
    text = rule["expr"]
    for counter in re.findall(r"\bsd_\w+_(?:total|count|sum|bucket)\b", text):
        for place in re.finditer(rf"{counter}\b(\{{[^}}]*\}})?(\[|\s|\)|$)", text):
            after = text[place.end() - 1 :]
            born = re.match(r"( offset \w+)?\)?( > 0| offset|\n|\)|$)", after) is not None
            assert after.startswith("[") or born, text[place.start() : place.end() + 20]


@each([rule for rule in ALERT_RULES if rule["alert"] not in ALWAYS])
def test_every_branch_of_an_alert_compares(rule):
    """Without a comparison it would fire for as long as the series is there."""

    def compares(expr):
        if isinstance(expr, ParenExpr):
            return compares(expr.expr)
        if isinstance(expr, BinaryExpr) and str(expr.op) == "or":
            return compares(expr.lhs) and compares(expr.rhs)
        if isinstance(expr, BinaryExpr) and str(expr.op) in OPERATORS:
            return compares(expr.lhs)
        return isinstance(expr, BinaryExpr) and str(expr.op) in COMPARISONS

    assert compares(parse(rule["expr"]))


@pytest.mark.parametrize("alert", DEFINED, ids=lambda alert: alert.name)
def test_an_alert_waits_or_says_why_it_does_not(alert):
    """A single odd reading wakes nobody."""
    assert (alert.lasting is None) == bool(alert.at_once)


@each(ALERT_RULES)
def test_an_alert_says_what_where_and_what_now(rule):
    """Severity, summary, description with values, runbook and dashboard."""
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url", "dashboard"}
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket", "info", "none"}
    assert not said["summary"].endswith(".")
    assert said["description"].endswith((".", ".{{ end }}"))
    assert re.search(r"/d/(sd-service|sd-gpu|sd-generation)\b", said["dashboard"])
    if rule["alert"] not in ALWAYS:
        assert "$labels.instance" in said["summary"] + said["description"]
        assert "{{ $labels.instance" in said["dashboard"]


@each(ALERT_RULES)
def test_the_runbook_link_leads_to_a_file(rule):
    """Prometheus serves the folder alerts/ under /user (--web.user-assets)."""
    path = rule["annotations"]["runbook_url"].removeprefix("{{ $externalURL }}/user/")
    assert (ALERTS / path).is_file()
    assert path == f"runbooks/{rule['alert']}.md"


@each(ALERT_RULES)
def test_the_labels_that_an_alert_speaks_of_are_there(rule):
    """Aggregation drops labels; a template would print nothing in their place."""
    spoken = set().union(*(template_labels(text) for text in rule["annotations"].values()))
    missing = spoken - surviving(parse(rule["expr"]), KNOWN)
    # When nothing is monitored there is no instance to name, and the texts say that instead.
    assert missing == ({"instance"} if rule["alert"] == "SDTargetDown" else set())
    for text in (rule["annotations"]["summary"], rule["annotations"]["description"]):
        assert not missing or re.search(r"{{ if (not )?\$labels\.instance }}", text)


@each(ALERT_RULES)
def test_an_alert_can_be_silenced_with_its_instance(rule):
    """Inhibition compares job and instance, so both must survive in every alert."""
    if rule["alert"] not in {*ALWAYS, "SDTargetDown"}:
        assert {"job", "instance"} <= surviving(parse(rule["expr"]), KNOWN)


@each([rule for rule in RULES if "record" in rule])
def test_a_recorded_series_is_named_for_what_it_is(rule):
    """level:metric:operations, or as Sloth names it."""
    sloth = rule["record"].startswith("slo:") or rule["record"] == "sloth_slo_info"
    assert sloth or re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule["record"])
    if sloth:
        assert {"sloth_id", "sloth_service", "sloth_slo"} <= set(rule["labels"])


@each([rule for rule in RULES if "record" in rule])
def test_what_divides_is_more_than_nothing(rule):
    """0 / 0 is no number, and whatever is summed or averaged with it is none either."""

    def divisors(expr):
        if isinstance(expr, BinaryExpr):
            yield from divisors(expr.lhs)
            yield from divisors(expr.rhs)
            if str(expr.op) == "/":
                yield str(expr.rhs)
        elif isinstance(expr, (ParenExpr, AggregateExpr)):
            yield from divisors(expr.expr)

    for divisor in divisors(parse(rule["expr"])):
        assert divisor.endswith(" > 0)") or float(divisor) > 0
