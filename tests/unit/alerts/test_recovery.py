"""What is left of an outage after its end pages nobody."""

import re
from copy import deepcopy

import pytest
import yaml

from tests.unit.alerts.programs import GROUPS, needs, run

INSTANCE = 'job="sd-api", instance="gpu-1:8000"'
BEFORE, OUTAGE, AFTER = 360, 40, 60
"""Minutes. The outage is long enough for the pair of 6 h and 30 min."""
BURNS = 'ALERTS{alertname="SDErrorBudgetBurnFast", alertstate="firing"}'
CAUSE = 'ALERTS{alertname="SDModelNotLoaded", alertstate="firing"}'
ALONE = f"count({BURNS} unless on (job, instance) {CAUSE})"


def alone(folder, rules):
    """Return the minutes after the repair at which the burn would page without its cause."""
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": rules}), encoding="utf-8")
    all_ = BEFORE + OUTAGE + AFTER
    series = {
        f'sd_jobs_total{{{INSTANCE}, outcome="succeeded", code=""}}': f"0+10x{BEFORE} "
        f"{10 * BEFORE}x{OUTAGE - 1} {10 * BEFORE}+1x{AFTER}",
        f'sd_jobs_total{{{INSTANCE}, outcome="failed", code="internal_error"}}': f"0x{all_}",
        f'sd_requests_refused_total{{{INSTANCE}, reason="model_unavailable"}}': f"0x{BEFORE} "
        f"10+10x{OUTAGE - 1} {10 * OUTAGE}x{AFTER}",
        f'sd_engine_state{{{INSTANCE}, state="failed"}}': f"0x{BEFORE} 1x{OUTAGE - 1} 0x{AFTER}",
    }
    repaired = BEFORE + OUTAGE
    minutes = range(repaired, repaired + AFTER)
    content = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": row} for key, row in series.items()],
                "promql_expr_test": [
                    {"expr": ALONE, "eval_time": f"{minute}m", "exp_samples": []}
                    for minute in minutes
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    finished = run("promtool", "test", "rules", folder / "test.yml")
    times = re.findall(r"time: (\d+)h(\d*)m?", finished.stdout + finished.stderr)
    assert bool(times) == bool(finished.returncode), finished
    return [int(hours) * 60 + int(minutes or 0) - repaired for hours, minutes in times]


@pytest.mark.long
@needs("promtool", "prometheus")
def test_the_errors_of_an_outage_page_nobody_when_it_is_over(tmp_path):
    """Its cause is named until they have left the windows; without that, they would page."""
    wanted = {"sd-objective-availability", "sd-service"}
    groups = [deepcopy(group) for group in GROUPS if group["name"] in wanted]
    assert alone(tmp_path, groups) == []
    for rule in (rule for group in groups for rule in group["rules"]):
        rule.pop("keep_firing_for", None)
    late = alone(tmp_path, groups)
    assert late[-1] > 20, late
