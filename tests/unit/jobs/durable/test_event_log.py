"""What watchers of a job are told."""

import asyncio

from service.jobs.durable.event_log import BOOT, EventLog, JobEvent


async def told(log: EventLog, seen: str = "") -> list[JobEvent]:
    """Watch to the end."""
    return [event async for event in log.after(seen)]


def kinds(events: list[JobEvent]) -> list[str]:
    return [event.kind for event in events]


def through(log: EventLog) -> None:
    """Let a job of three steps run through."""
    log.say("queued", {"position": 1})
    log.say("started", {})
    for step in (1, 2, 3):
        log.say("step", {"step": step})
    log.say("finished", {})


async def test_who_comes_late_is_told_what_still_matters():
    """Of many steps the latest, everything in order, and then the stream ends."""
    log = EventLog()
    through(log)
    events = await told(log)
    assert kinds(events) == ["queued", "started", "step", "finished"]
    assert events[2].data == {"step": 3}


async def test_a_watcher_is_told_each_step_as_it_comes():
    """Nothing is left out while the watcher keeps up."""
    log = EventLog()
    watching = asyncio.create_task(told(log))
    for kind, data in (("queued", {}), ("step", {"step": 1}), ("step", {"step": 2})):
        log.say(kind, data)
        for _ in range(3):
            await asyncio.sleep(0)
    assert log.watchers == 1
    log.say("cancelled", {})
    assert kinds(await watching) == ["queued", "step", "step", "cancelled"]
    assert log.watchers == 0


async def test_a_job_that_nobody_watches_wakes_nobody():
    """Most jobs have no watcher: an event costs them no signal."""
    log = EventLog()
    signal = log._news
    log.say("queued", {})
    assert log._news is signal
    watching = asyncio.create_task(told(log))
    await asyncio.sleep(0)
    log.say("started", {})
    assert log._news is not signal
    log.say("finished", {})
    assert kinds(await watching) == ["queued", "started", "finished"]


async def test_a_watcher_who_lost_the_line_goes_on_where_it_was():
    """The id of the event it saw last is enough."""
    log = EventLog()
    log.say("queued", {})
    log.say("started", {})
    assert log.newest is not None
    seen = log.newest.id
    log.say("step", {"step": 1})
    log.say("failed", {})
    assert kinds(await told(log, seen)) == ["step", "failed"]


async def test_the_end_is_told_to_who_was_still_being_told_of_a_step():
    """A last word that falls while an event is on its way to the watcher is not lost."""
    log = EventLog()
    log.say("step", {"step": 1})
    watching = log.after()
    assert (await anext(watching)).kind == "step"
    log.say("step", {"step": 2})
    log.say("finished", {})
    assert [event.kind async for event in watching] == ["step", "finished"]


async def test_who_saw_the_end_is_told_nothing():
    """The stream ends at once instead of waiting for what never comes."""
    log = EventLog()
    through(log)
    assert log.newest is not None
    assert await told(log, log.newest.id) == []


async def test_an_id_of_another_process_counts_for_nothing():
    """After a restart the numbers begin anew; everything is told again."""
    log = EventLog()
    through(log)
    for seen in ("00000000-9", "nonsense", "-", "12-x", f"{BOOT}-{'9' * 5000}", f"{BOOT}-\uff16"):
        assert len(await told(log, seen)) == 4


async def test_a_job_that_waits_again_starts_its_story_anew():
    """Steps of a dead engine are no longer told."""
    log = EventLog()
    log.say("queued", {})
    log.say("started", {})
    log.say("step", {"step": 9})
    log.say("queued", {"position": 1})
    log.say("cancelled", {})
    assert kinds(await told(log)) == ["queued", "cancelled"]


async def test_previews_are_for_those_who_asked():
    """The newest of them, between the others in its turn, and never as the progress."""
    log = EventLog()
    log.say("queued", {"position": 1})
    plain = asyncio.create_task(told(log))
    seeing = asyncio.create_task(_seen(log))
    await asyncio.sleep(0)
    for step in (1, 2):
        log.say("step", {"step": step})
        log.say("preview", {"step": step})
    assert log.newest is not None
    assert (log.newest.kind, log.viewers, log.watchers) == ("step", 1, 2)
    late = asyncio.create_task(_seen(log))
    await asyncio.sleep(0)
    log.say("finished", {})
    assert "preview" not in kinds(await plain)
    assert "preview" in kinds(await seeing)
    assert [event.data for event in await late if event.kind == "preview"] == [{"step": 2}]
    assert kinds(await told(log)) == ["queued", "step", "finished"]


async def test_no_preview_is_kept_when_nobody_looks():
    """Its pixels are let go with the last viewer."""
    log = EventLog()
    viewing = log.after(previews=True)
    log.say("queued", {})
    assert (await anext(viewing)).kind == "queued"
    log.say("preview", {"step": 1})
    assert (await anext(viewing)).kind == "preview"
    assert "preview" in log._events
    await viewing.aclose()
    assert (log.viewers, log.watchers) == (0, 0)
    assert "preview" not in log._events


async def _seen(log: EventLog) -> list[JobEvent]:
    return [event async for event in log.after(previews=True)]
