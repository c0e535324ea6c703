"""Who is told, and what is held back."""

import re
from functools import partial

import pytest
import yaml
from promql_parser import parse

from tests.unit.alerts.programs import ALERTS, NAMES, RULES, needs, run
from tests.unit.alerts.vocabulary import recorded, scraped, surviving

PATH = ALERTS / "alertmanager.yml"
CONFIG = yaml.safe_load(PATH.read_text(encoding="utf-8"))
GRAVITY = ["none", "info", "ticket", "page"]
MATCHER = re.compile(r'^\s*(\w+)\s*(=~|!~|!=|=)\s*"?([^"]*)"?\s*$')
amtool = partial(needs, "amtool", "prometheus-alertmanager")()

RECEIVERS = {"page": "page", "ticket": "ticket", "info": "info", "none": "watchdog"}


def parts(matcher):
    """Return label, operator and value of a matcher."""
    found = MATCHER.match(matcher)
    assert found, matcher
    return found.groups()


def matches(matchers, labels):
    """Decide as Alertmanager does: all must match, a missing label is empty."""
    for text in matchers:
        label, operator, value = parts(text)
        found = labels.get(label, "")
        hit = re.fullmatch(value, found) is not None if "~" in operator else found == value
        if hit is operator.startswith("!"):
            return False
    return True


def alerts():
    return [{"alertname": rule["alert"], **rule["labels"]} for rule in RULES if "alert" in rule]


def silenced_by(source):
    """Return the alerts of the same instance that ``source`` holds back."""
    return {
        (target["alertname"], target["severity"])
        for rule in CONFIG["inhibit_rules"]
        if matches(rule["source_matchers"], source)
        for target in alerts()
        if matches(rule["target_matchers"], target) and target != source
    }


def named(name, severity):
    return {"alertname": name, "severity": severity}


@amtool
def test_the_configuration_is_valid():
    """As Alertmanager's own tool sees it."""
    finished = run("amtool", "check-config", PATH)
    assert finished.returncode == 0, finished


@amtool
@pytest.mark.parametrize(("severity", "receiver"), RECEIVERS.items())
def test_each_severity_reaches_its_receiver(severity, receiver):
    """A page wakes, a ticket waits for the morning, info is read when one looks."""
    finished = run(
        *("amtool", "config", "routes", "test", f"--config.file={PATH}"),
        *(f"--verify.receivers={receiver}", f"severity={severity}", "alertname=SDAny"),
    )
    assert finished.returncode == 0, finished


@amtool
def test_an_alert_of_no_known_severity_is_not_lost():
    """Rules of others may send theirs here."""
    finished = run(
        *("amtool", "config", "routes", "test", f"--config.file={PATH}"),
        *("--verify.receivers=ticket", "severity=critical"),
    )
    assert finished.returncode == 0, finished


def test_the_watchdog_is_sent_again_and_again():
    """Its receiver counts the minutes since the last message."""
    (route,) = [row for row in CONFIG["route"]["routes"] if row["receiver"] == "watchdog"]
    assert (route["group_wait"], route["repeat_interval"]) == ("0s", "1m")


def test_every_receiver_is_told_of_and_there():
    """No route leads nowhere and no receiver waits for nothing."""
    told = {CONFIG["route"]["receiver"], *(row["receiver"] for row in CONFIG["route"]["routes"])}
    assert told == {row["name"] for row in CONFIG["receivers"]}


def test_every_matcher_means_an_alert_that_exists():
    """A renamed alert would silently no longer be held back."""
    for rule in CONFIG["inhibit_rules"]:
        assert any(matches(rule["source_matchers"], one) for one in alerts()), rule
        assert any(matches(rule["target_matchers"], one) for one in alerts()), rule
        for text in rule["source_matchers"] + rule["target_matchers"]:
            label, operator, value = parts(text)
            for pattern in value.split("|") if label == "alertname" else ():
                assert any(re.fullmatch(pattern, name) for name in NAMES), (operator, pattern)


def test_an_instance_holds_back_only_its_own():
    """Every rule compares job and instance, which the alerts have."""
    assert {tuple(rule["equal"]) for rule in CONFIG["inhibit_rules"]} == {
        ("job", "instance"),
        ("job", "instance", "engine"),
    }
    known = scraped() | recorded(RULES)
    for rule in RULES:
        if rule.get("alert") not in {None, "SDTargetDown", "SDWatchdog"}:
            assert {"job", "instance"} <= surviving(parse(rule["expr"]), known)


def test_an_engine_holds_back_only_its_own_where_both_alerts_name_one():
    """A crash loop of one engine does not hide the restart of another."""
    known = scraped() | recorded(RULES)
    of_engines = {
        rule["alert"]
        for rule in RULES
        if "alert" in rule and "engine" in surviving(parse(rule["expr"]), known)
    }
    assert {"SDEngineRestarting", "SDOutOfMemory", "SDEngineCircuitOpen"} < of_engines
    for rule in CONFIG["inhibit_rules"]:
        pairs = {
            (source["alertname"], target["alertname"])
            for source in alerts()
            if matches(rule["source_matchers"], source)
            for target in alerts()
            if matches(rule["target_matchers"], target)
        }
        both = all(set(pair) <= of_engines for pair in pairs)
        assert both is ("engine" in rule["equal"]), rule


def test_nothing_is_held_back_by_something_less_grave():
    """A ticket never hides a page."""
    for source in alerts():
        for _, severity in silenced_by(source):
            assert GRAVITY.index(severity) <= GRAVITY.index(source["severity"]), source


def test_no_two_alerts_hold_each_other_back():
    """Else neither would be heard of."""
    for source in alerts():
        for name, severity in silenced_by(source):
            assert tuple(source.values()) not in silenced_by(named(name, severity))


def test_a_service_that_is_gone_is_the_only_news():
    """All else of the instance is silent, but for the dead man's switch and what is no service."""
    everything = {(one["alertname"], one["severity"]) for one in alerts()}
    kept = {("SDTargetDown", "page"), ("SDWatchdog", "none"), ("SDMonitoringBroken", "ticket")}
    assert silenced_by(named("SDTargetDown", "page")) == everything - kept


@pytest.mark.parametrize(
    "name",
    [
        "SDModelNotLoaded",
        "SDNotReady",
        "SDEngineRestarting",
        "SDEngineCircuitOpen",
        "SDServiceRestarting",
    ],
)
def test_without_an_engine_its_symptoms_are_silent(name):
    """Queue, latency and errors are what a dead engine looks like from outside."""
    symptoms = re.compile(r"SDQueue(Depth|Wait)High|SD(ErrorBudget|LatencyBudget)Burn.*")
    wanted = {(one["alertname"], one["severity"]) for one in alerts()}
    assert {one for one in wanted if symptoms.fullmatch(one[0])} <= silenced_by(named(name, "page"))


@pytest.mark.parametrize(
    ("source", "held_back"),
    [
        (named("SDOutOfMemoryRepeated", "page"), {"SDOutOfMemory", "SDOutOfMemoryRecovered"}),
        (named("SDErrorBudgetBurnFast", "page"), {"SDErrorBudgetBurnSlow"}),
        (named("SDLatencyBudgetBurnFast", "page"), {"SDLatencyBudgetBurnSlow"}),
        (named("SDQueueStuck", "page"), {"SDQueueDepthHigh", "SDQueueWaitHigh"}),
        (named("SDModelNotLoaded", "page"), {"SDNotReady"}),
        (named("SDEngineCircuitOpen", "page"), {"SDNotReady", "SDEngineRestarting"}),
        (named("SDGpuLost", "page"), {"SDGpuCollectorBroken", "SDGpuXid", "SDEngineRestarting"}),
    ],
    ids=lambda value: value.get("alertname") if isinstance(value, dict) else "",
)
def test_the_graver_form_silences_the_milder(source, held_back):
    """One incident, one message."""
    assert held_back <= {name for name, _ in silenced_by(source)}


@pytest.mark.parametrize("rule", [rule for rule in RULES if "keep_firing_for" in rule])
def test_a_cause_that_outlasts_its_outage_does_not_hide_a_queue_that_stands_still(rule):
    """It pages a service that is ready, which is what the end of an outage looks like."""
    source = named(rule["alert"], rule["labels"]["severity"])
    assert ("SDQueueStuck", "page") not in silenced_by(source)


def test_the_burn_of_one_objective_does_not_silence_the_other():
    """Slow images and failed ones are two stories."""
    assert silenced_by(named("SDErrorBudgetBurnFast", "page")) == {
        ("SDErrorBudgetBurnSlow", "ticket"),
        ("SDClientsFailing", "ticket"),  # Where jobs fail, requests do.
    }
