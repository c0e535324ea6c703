"""Faults of the GPU, counted as the driver reports them."""

import time

import pynvml
import pytest
from structlog.testing import capture_logs

from service.gpu import xid as gpu_faults
from service.gpu.xid import AT_ONCE, XIDS, XidCounter

NONE = {str(xid): 0 for xid in XIDS} | {"other": 0}


@pytest.mark.usefixtures("card")
def test_the_counts_start_at_0():
    """An ``increase()`` over a series that is born with its first fault never sees it."""
    faults = XidCounter()
    with faults.watched("0"):
        assert faults.wait(0)
    assert (faults.counts, faults.last_at) == (NONE, 0)


def test_a_fault_is_counted_by_its_number(card):
    """All that were reported meanwhile are taken at once, and logged."""
    faults, before = XidCounter(), time.time()
    with faults.watched("0"), capture_logs() as lines:
        for xid in (79, 31, 79):
            card.report_fault(xid)
        assert faults.wait(0)
        assert faults.counts == NONE | {"79": 2, "31": 1}
        assert faults.last_at >= before
    assert [line["xid"] for line in lines] == [79, 31, 79]


def test_a_number_that_is_not_known_is_other(card):
    """What a driver reports must not be able to make series without end."""
    faults = XidCounter()
    with faults.watched("0"), capture_logs() as lines:
        for xid in (0, 1, 999, 2**64 - 1):
            card.report_fault(xid)
        faults.wait(0)
        assert faults.counts == NONE | {"other": 4}
    assert [line["xid"] for line in lines] == [0, 1, 999, 2**64 - 1]


def test_an_event_that_is_no_fault_is_not_counted(card):
    """Some drivers also deliver what was not asked for: a change of clocks, for example."""
    card.set(event_type=16)
    faults = XidCounter()
    with faults.watched("0"):
        card.report_fault(79)
        faults.wait(0)
    assert faults.counts == NONE


def test_faults_of_before_are_not_counted(card):
    """They were reported to whoever listened then."""
    card.report_fault(79)
    faults = XidCounter()
    with faults.watched("0"):
        faults.wait(0)
    assert faults.counts == NONE


def test_counts_stay_when_the_driver_is_opened_again(card):
    """A counter that begins anew would hide what took the GPU away."""
    faults = XidCounter()
    for _ in range(2):
        with faults.watched("0"):
            card.report_fault(79)
            faults.wait(0)
    assert faults.counts == NONE | {"79": 2}


def test_a_fault_of_a_gpu_that_is_gone_is_still_taken(card):
    """The fault is why it is gone."""
    faults = XidCounter()
    with faults.watched("0"):
        card.report_fault(79)
        card.set(lost=1)
        assert not faults.wait(0)
    assert faults.counts == NONE | {"79": 1}


@pytest.mark.parametrize("code", [3, 13, 4, 2])
def test_a_driver_that_reports_no_faults_has_no_counts(card, code):
    """A 0 would say that somebody listens; said once in the log."""
    card.set(errors=f"events:{code}")
    faults = XidCounter()
    with capture_logs() as lines:
        for _ in range(2):
            with faults.watched("0"):
                assert not faults.wait(10)
    assert faults.counts is None
    assert [line["event"] for line in lines] == ["gpu_faults_not_reported"]


def test_a_gpu_that_cannot_be_found_has_no_counts(card):
    """That it cannot is for the reading to say."""
    card.set(lost=1)
    faults = XidCounter()
    with faults.watched("0"), faults.watched("7"), capture_logs() as lines:
        assert not faults.wait(10)
    assert (faults.counts, lines) == (None, [])


def test_faults_without_end_do_not_keep_the_thread(card, monkeypatch):
    """There is a reading to take, too."""
    monkeypatch.setattr(gpu_faults.log, "warning", lambda *_, **__: None)
    faults = XidCounter()
    with faults.watched("0"):
        card.set(xids=",".join(["79"] * (AT_ONCE + 50)))
        assert not faults.wait(10)
        assert faults.counts == NONE | {"79": AT_ONCE}
        assert faults.wait(0)
        assert faults.counts == NONE | {"79": AT_ONCE + 50}


def test_a_scrape_is_not_disturbed_by_a_fault(card):
    """The counts that it reads stay as they are."""
    faults = XidCounter()
    with faults.watched("0"):
        before = faults.counts
        card.report_fault(79)
        faults.wait(0)
    assert before == NONE


def test_the_set_of_events_is_given_back(card, monkeypatch):
    """Each attempt to open the driver makes one."""
    freed: list[object] = []
    monkeypatch.setattr(pynvml, "nvmlEventSetFree", freed.append)
    faults = XidCounter()
    with faults.watched("0"):
        assert freed == []
    assert len(freed) == 1
    card.set(errors="events:3")
    with faults.watched("0"):
        assert len(freed) == 2
