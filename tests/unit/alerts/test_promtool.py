"""What Prometheus' own tools say of the rules."""

from functools import partial
from typing import Any

import pytest

from alerts import generate
from tests.unit.alerts.mutants import dead, lax
from tests.unit.alerts.programs import (
    ALERTS,
    ALWAYS,
    GROUPS,
    NAMES,
    cases,
    needs,
    read,
    rules,
    run,
    wrong,
)

HARMLESS = {
    "SDTargetDown": 2,
}
"""Faults that change nothing: absent() is 1 or not there, and a target that is down has fired
before it is asked whether it shows sd_build_info."""

SHORT = ("SDDiskFilling", "SDGpuThrottled", "SDWatchdog")
"""Alerts whose rules are given faults in the short run, too."""

promtool = partial(needs, "promtool", "prometheus")()


@promtool
@pytest.mark.parametrize("windows", generate.WINDOWS)
def test_the_rules_have_no_faults_that_promtool_knows(windows, tmp_path):
    """The normal and the short rules are valid, and no rule is there twice."""
    path = tmp_path / "rules.yml"
    assert generate.main(["--windows", windows, "--out", str(path)]) == 0
    finished = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", path)
    assert finished.returncode == 0, finished


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_in_which_it_fires_and_a_quiet_one(name):
    """A case is named for what it shows, and asks after its own alert alone."""
    kinds = {"fires": True} if name in ALWAYS else {"fires": True, "quiet": False}
    for kind, fires in kinds.items():
        assert cases(name, kind)
        for case in cases(name, kind):
            asked = case["alert_rule_test"]
            assert {question["alertname"] for question in asked} == {name}
            assert any(question["exp_alerts"] for question in asked) is fires, case["name"]
    assert len(read(name)["tests"]) == sum(len(cases(name, kind)) for kind in kinds)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ALWAYS)))
def test_every_alert_is_seen_to_end(name):
    """In at least one case it fires and later does not."""
    ends = [
        [bool(question["exp_alerts"]) for question in case["alert_rule_test"]]
        for case in cases(name, "fires")
    ]
    assert any(True in end and not end[-1] for end in ends)


def test_there_is_no_case_of_an_alert_that_does_not_exist():
    """A renamed alert leaves no test behind that tests nothing."""
    files = [path for path in (ALERTS / "tests").rglob("*") if not path.is_dir()]
    assert sorted(path.stem for path in files) == NAMES
    assert {read(name)["rule_files"][0] for name in NAMES} == {"../../rules.yml"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["name"])
def test_the_cases_of_an_alert_stand_in_the_folder_of_its_group(group):
    """Next to those that its module in alerts/groups may change as well."""
    name = group["name"].removeprefix("sd-")
    folder = ALERTS / "tests" / ("objectives" if name.startswith("objective-") else name)
    alerts = {rule["alert"] for rule in group["rules"] if "alert" in rule}
    assert alerts <= {path.stem for path in folder.glob("*.yml")}


@promtool
@pytest.mark.parametrize("name", NAMES)
def test_an_alert_does_what_its_cases_say(name, tmp_path):
    """The cases hold for the rules."""
    assert wrong(tmp_path, name, {name: rules(name)}) == set()


@promtool
@pytest.mark.parametrize(
    "name",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in NAMES],
)
def test_the_cases_of_an_alert_notice_a_fault(name, tmp_path):
    """They hold for no version of its rules with a fault.

    The faults: a branch of the condition that never holds; a threshold, a guard or the time
    that it must last is missing.
    """
    versions, faults = dict[str, list[dict[str, Any]]](), {}
    for place, rule in enumerate(rules(name)):
        changes = [{"expr": expr} for expr in dead(rule["expr"])]
        if name not in ALWAYS:
            changes += [{"expr": expr} for expr in lax(rule["expr"])]
            changes += [{key: "0s"} for key in ("for", "keep_firing_for") if key in rule]
        for change in changes:
            key = f"{name}_{len(versions) + 1}"
            versions[key] = [
                one | change if index == place else one for index, one in enumerate(rules(name))
            ]
            faults[key] = change
    failed = wrong(tmp_path, name, versions)
    unnoticed = [fault for key, fault in faults.items() if key not in failed]
    assert len(unnoticed) == HARMLESS.get(name, 0), unnoticed
