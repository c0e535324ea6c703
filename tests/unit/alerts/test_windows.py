"""Durations: the only thing that a drill changes."""

import re
from dataclasses import dataclass, fields

import pytest

from alerts import rules
from alerts.groups.objectives import FAST, spans
from alerts.rule import Links, write
from alerts.windows import NORMAL, SHORT, Span, Windows, span

DURATION = re.compile(r"\b\d+[smhd]\b")


@dataclass(frozen=True)
class Blank(Span):
    """A span that writes its name where its length would stand."""

    name: str

    def __str__(self):
        return f"<{self.name}>"

    @property
    def number(self):
        return f"<{self.name} in seconds>"


BLANKS = Windows(**{row.name: Blank(0, row.name) for row in fields(Windows)})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1s"), (90, "90s"), (300, "5m"), (5400, "90m"), (7200, "2h"), (86_400, "1d")],
)
def test_a_span_is_written_in_its_largest_whole_unit(seconds, text):
    """And what is written is read as the same."""
    assert str(Span(seconds)) == text
    assert span(text) == Span(seconds)


@pytest.mark.parametrize("windows", [NORMAL, SHORT], ids=["normal", "short"])
def test_normal_and_short_rules_are_one_text_with_other_durations(windows):
    """Filled into the same blanks, the durations give each of the two, byte for byte."""
    text = rules.render(BLANKS)
    for row in fields(Windows):
        length = getattr(windows, row.name)
        text = text.replace(f"<{row.name}>", str(length))
        text = text.replace(f"<{row.name} in seconds>", length.number)
    assert text == rules.render(windows)


def test_no_duration_stands_in_a_rule_itself():
    """Every one is in Windows; those in the names of series and in prose are names."""
    for group in rules.groups(BLANKS):
        for rule in group.rules:
            without_selectors = re.sub(r"[a-z_:]+:[a-z0-9_:]+", "", rule.expr)
            assert DURATION.findall(without_selectors) == [], rule.name
    assert "<" in write(rules.groups(BLANKS), Links())


def test_every_window_is_used():
    """A duration that no rule takes is a setting that does nothing."""
    text = rules.render(BLANKS)
    assert [row.name for row in fields(Windows) if f"<{row.name}" not in text] == []


def test_a_drill_is_over_soon():
    """Nothing but the month of the budget takes more than half a minute."""
    long = {row.name for row in fields(Windows) if getattr(SHORT, row.name).seconds > 30}
    assert long == {"period", "disk_ahead"}


@pytest.mark.parametrize("windows", [NORMAL, SHORT], ids=["normal", "short"])
def test_the_short_window_of_a_pair_is_shorter(windows):
    """It ends the alert, so it must not outlast the long one."""
    lengths = [windows.burn_5m, windows.burn_30m, windows.burn_1h, windows.burn_2h]
    lengths += [windows.burn_6h, windows.burn_1d, windows.burn_3d, windows.period]
    assert lengths == sorted(lengths, key=lambda one: one.seconds)
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize("windows", [NORMAL, SHORT], ids=["normal", "short"])
def test_a_cause_is_named_for_as_long_as_its_errors_can_page(windows):
    """The longer of the short windows of what pages holds them until then."""
    longest = max(spans(windows)[short].seconds for _, _, short in FAST)
    assert windows.outage_keep.seconds >= longest + 2 * windows.interval.seconds
