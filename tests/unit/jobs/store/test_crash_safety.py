"""A process that is killed at any of its writes has lost nothing that it promised."""

import itertools
import multiprocessing
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import JobExpired
from service.jobs.inputs.base import NAMES
from service.jobs.job import JobState
from tests.support.jobs.kept_jobs import over
from tests.unit.jobs import dying

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload([dying.__name__])
LEAST = 100
"""Writes in the life of the child; fewer would mean that the hooks do not hook."""


def killed(folder: Path, told: Path, nth: int) -> bool:
    """Run the child, and return whether it came to its ``nth`` write."""
    child = SPAWN.Process(target=dying.live, args=(folder, told, nth))
    child.start()
    child.join(60)
    code = child.exitcode
    child.close()
    assert code in (0, -signal.SIGKILL)
    return code != 0


def promised(told: Path) -> dict[str, set[str]]:
    """Return what clients were told, by the word."""
    found: dict[str, set[str]] = {"accepted": set(), "finished": set()}
    for line in told.read_text().splitlines():
        word, job_id = line.split()
        found[word].add(job_id)
    return found


async def kept(folder: Path, told: Path) -> None:
    """Start again on the folder, and hold it to what was promised."""
    before = promised(told)
    dispatcher, durable = dying.parts(folder, ahead=dying.AGE_SECONDS)
    async with durable.opened():
        # Nothing unknown is left, and nothing that is known went.
        ids = await durable.store.with_images()
        files = {path.name for path in durable.results.folder.iterdir()}
        assert files <= {f"{job_id}.zip" for job_id in ids}
        names = {path.name for path in durable.inputs.folder.iterdir()}
        assert names <= {f"{job_id}.{name}" for job_id in ids for name in NAMES}
        unfinished = {job.id for job in await durable.store.unfinished()}
        assert names >= {f"{job_id}.{name}" for job_id in unfinished for name in NAMES}
        for job_id in before["finished"]:
            with suppress(JobExpired):
                assert (await durable.store.get(job_id, "anonymous")).state is JobState.SUCCEEDED
                assert f"{job_id}.zip" in files
        await dispatcher.start()
        for job_id in before["accepted"]:
            with suppress(JobExpired):
                stored = await over(durable, job_id)
                assert stored.state is JobState.SUCCEEDED
                for index in (0, 1):
                    assert len((await durable.jobs.image(stored, index)).data) > 64 * 64 * 3
                said = await durable.results.metadata(job_id)
                assert said == stored.metadata == {"id": job_id}
        # Who did not hear of the acceptance asks again, and has one job.
        await durable._sweep_once()  # What is too old is gone now, and not between two questions.
        for key in dying.IDEMPOTENT:
            again = await dying.accepted(durable, key)
            assert again == await dying.accepted(durable, key)
            await over(durable, again)
        await dispatcher.stop()


@pytest.mark.parametrize("apart", [pytest.param(1, marks=pytest.mark.long), 7])
async def test_whenever_it_is_killed_what_was_accepted_is_made_and_what_was_made_is_whole(
    apart, tmp_path
):
    """At every statement of SQLite and every call that changes the folders of images.

    In the short form at every seventh.
    """
    writes = 0
    for nth in itertools.count(1, apart):
        folder, told = tmp_path / f"{nth}", tmp_path / f"{nth}.told"
        folder.mkdir()
        came = killed(folder, told, nth)
        await kept(folder, told)
        if not came:
            break
        writes = nth
    assert writes + apart > LEAST, writes
