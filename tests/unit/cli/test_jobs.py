"""The command ``jobs``, with and without a service that runs."""

import asyncio
import threading

import pytest

from service.__main__ import main
from service.cli import jobs
from service.cli.exits import Exit
from service.config.table import Config
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import wiring
from service.jobs.durable.live_job import Durability, Terms
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, kept
from tests.support.jobs.photos import png, uploaded
from tests.support.simulation.fake_engine import FakeEngine


async def filled(folder, engine):
    """Finish a job with an image of ``anna``; leave one that runs, and one of ``ben``."""
    request, uploads = uploaded(folder.inputs, png())
    done = await folder.jobs.submit(request, "anna", Durability.PROMISED, Terms(uploads=uploads))
    await engine.jobs(1)
    await engine.step()
    await done.wait()
    await folder.jobs.submit(REQUEST, "anna", Durability.PROMISED)
    await folder.jobs.submit(REQUEST, "ben", Durability.PROMISED)
    await engine.jobs(2)


def purge(folder, key="anna"):
    """Run the command in this process, and return its exit code."""
    return main(["jobs", "purge", "--key", key, "--data-dir", str(folder)])


def left(folder):
    """Return the files of images that are left."""
    parts = (folder / wiring.IMAGES, folder / wiring.INPUTS)
    return [path.name for part in parts for path in part.iterdir()]


async def test_jobs_of_a_key_are_removed_while_no_service_runs(tmp_path, capsys):
    """Those that would have gone on after a restart, too; not those of others."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    async with asyncio.timeout(60), (folder := kept(tmp_path, dispatcher)).opened():
        await dispatcher.start()
        await filled(folder, engine)
        await dispatcher.stop()
    assert len(left(tmp_path)) == 2
    assert await asyncio.to_thread(purge, tmp_path) == Exit.DONE
    assert capsys.readouterr().out.endswith("2 jobs of the key anna are removed.\n")
    assert left(tmp_path) == []
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    async with asyncio.timeout(60), (folder := kept(tmp_path, dispatcher)).opened():
        await dispatcher.start()
        assert [live.job.owner for live in folder.jobs.live.values()] == ["ben"]
        await dispatcher.stop()


async def test_a_running_service_removes_them(tmp_path, monkeypatch, capsys):
    """It is asked by a file, and cancels what runs."""
    monkeypatch.setattr(wiring, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    async with asyncio.timeout(60), (folder := kept(tmp_path, dispatcher)).opened():
        await dispatcher.start()
        await filled(folder, engine)
        assert await asyncio.to_thread(purge, tmp_path) == Exit.DONE
        shown = capsys.readouterr()
        assert shown.out.endswith("All jobs of the key anna that were there are removed.\n")
        assert "the service is running" in shown.err
        assert left(tmp_path) == []
        assert [live.job.owner for live in folder.jobs.live.values()] == ["ben"]
        await dispatcher.stop()


async def test_a_key_without_jobs_is_told(tmp_path, monkeypatch, capsys):
    """Its name may be misspelt; nothing was removed, whether a service runs or not."""
    monkeypatch.setattr(wiring, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    said = "The key Anna had no jobs."
    async with asyncio.timeout(60), (folder := kept(tmp_path, dispatcher)).opened():
        await dispatcher.start()
        await filled(folder, engine)
        assert await asyncio.to_thread(purge, tmp_path, "Anna") == Exit.DONE
        assert said in capsys.readouterr().out
        assert len(left(tmp_path)) > 0
        await dispatcher.stop()
    assert await asyncio.to_thread(purge, tmp_path, "Anna") == Exit.DONE
    assert said in capsys.readouterr().out


async def test_a_service_that_takes_long_does_it_later(tmp_path, monkeypatch, capsys):
    """The command says so."""
    monkeypatch.setattr(jobs, "WAIT_SECONDS", 0.0)
    swept = threading.Event()
    dispatcher = Dispatcher([FakeEngine()], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    monkeypatch.setattr(folder, "_sweep", lambda: asyncio.to_thread(swept.wait))
    async with asyncio.timeout(60), folder.opened():
        assert await asyncio.to_thread(purge, tmp_path) == Exit.BUSY
        assert "not done it yet" in capsys.readouterr().err
        await folder._sweep_once()
        assert list((tmp_path / "purge").iterdir()) == []
        swept.set()


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_jobs_is_no_place_to_remove_any(tmp_path, folder, capsys):
    """Nothing is made there."""
    place = tmp_path / folder if folder else ""
    assert purge(place) == Exit.SETTING
    assert "no jobs are kept there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
