"""What is said when no connection can be taken."""

import asyncio

from structlog.testing import capture_logs

from service.http.server.accepting import SHORTAGE, Shortages


async def test_a_shortage_is_told_once(caplog):
    """However often asyncio says it at a time; with the cure."""
    shortages, loop = Shortages(), asyncio.get_running_loop()
    context = {"message": SHORTAGE, "exception": OSError(24, "Too many open files")}
    with capture_logs() as logs:
        for _ in range(100):
            shortages(loop, context)
    assert [line["event"] for line in logs] == ["accept_failed"]
    assert logs[0]["reason"] == "[Errno 24] Too many open files"
    assert caplog.records == []


async def test_a_later_shortage_is_told_again():
    """After as long as asyncio waits before it tries anew."""
    shortages, loop = Shortages(), asyncio.get_running_loop()
    with capture_logs() as logs:
        shortages(loop, {"message": SHORTAGE})
        shortages._logged_at -= 2
        shortages(loop, {"message": SHORTAGE})
    assert len(logs) == 2


async def test_everything_else_is_left_to_the_loop(caplog):
    """Which logs it."""
    Shortages()(asyncio.get_running_loop(), {"message": "something else"})
    assert [record.message for record in caplog.records] == ["something else"]
