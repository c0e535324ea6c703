"""A wall clock that is set while a whole service runs, or while it is down."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SOURCE = Path(__file__).with_name("wallclock.c")
DAY = 86_400
SECRET = "5f0c2f8e9a41d07c66b1e3d2a8f4970b"  # noqa: S105 - of no service but this test's


class WallClock:
    """The time of day of the processes that are started with its environment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "jump"
        library = folder / "wallclock.so"
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to build the clock with")
        flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run([compiler, *flags, "-o", library, SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """Let it be so much later than it is."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path):
    """Return a clock that the test sets."""
    folder = tmp_path / "clock"
    folder.mkdir()
    return WallClock(folder)


async def test_the_clock_is_what_the_service_goes_by(light, client_of, clock):
    """Else the other tests here would prove nothing: a new job's time of day is a day ahead."""
    with light(**clock.environment) as service:
        client = await client_of(service)
        before = await client.job(await client.accepted())
        clock.set(DAY)
        after = await client.job(await client.accepted())
    assert DAY - 60 < float(after["created_at"]) - float(before["created_at"]) < DAY + 60


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_jump_while_it_runs_ends_nothing_and_keeps_nothing(
    light, client_of, clock, tmp_path, jump
):
    """Deadlines, rates, quotas and the age of results go by the time that passes."""
    keys = {
        "API_KEYS": f"alice:{SECRET}",
        "RATE_LIMIT_PER_MINUTE": 60,
        "RATE_LIMIT_BURST": 8,
        "QUOTA_IMAGES_PER_DAY": 4,
        "RESULTS_MAX_AGE_SECONDS": 3600,
    }
    bearer = {"Authorization": f"Bearer {SECRET}"}
    settings = {**clock.environment, **keys, "DATA_DIR": tmp_path / "data"}
    with light(CHILD_STEP_SECONDS=0.3, MAX_CONCURRENT_REQUESTS=1, **settings) as service:
        client = await client_of(service, headers=bearer)
        await client.until_ready()
        finished = await client.accepted()
        assert (await client.ended(finished))["state"] == "succeeded"
        running, waiting = await client.accepted(), await client.accepted(timeout_seconds=120)
        await service.line("job_started", count=2)
        clock.set(jump)
        ends = [await client.ended(job) for job in (running, waiting)]
        assert [end["state"] for end in ends] == ["succeeded", "succeeded"]
        assert (await client.image(finished))[:4] == b"\x89PNG"
        # What is used of the quota stays used, and what was not stays free.
        assert (await client.generate())[0] == 200
        status, refused = await client.generate()
        assert (status, refused["code"]) == (429, "quota_exceeded")
        # By the second of each: the sweep of once a minute would find nothing too old.
        assert 0 <= await client.metric("sd_queue_oldest_job_age_seconds") < 60
        health = (await client.get("/health"))[1]
        assert 0 <= health["uptime_seconds"] < 120
        # And a short deadline that was given after the jump is neither over nor endless.
        late = await client.session.post(
            "/generate", json={"prompt": "a cat", "width": 256, "height": 256, "steps": 3}
        )
        assert late.status == 429


async def test_a_deadline_given_after_a_jump_ends_in_its_time(light, client_of, clock):
    """Neither at once nor never."""
    with light(CHILD_STEP_SECONDS=0.3, **clock.environment) as service:
        client = await client_of(service)
        await client.until_ready()
        clock.set(-DAY)
        late = await client.accepted(steps=10, timeout_seconds=1)
        end = await client.ended(late)
        assert (end["state"], end["error"]["code"]) == ("failed", "timeout")
        clock.set(DAY)
        assert (await client.ended(await client.accepted(timeout_seconds=60)))[
            "state"
        ] == "succeeded"


async def test_a_clock_set_back_while_it_was_down_keeps_no_job_for_ever(
    light, client_of, clock, tmp_path
):
    """A job's time is not longer after the restart than it was given."""
    settings = {**clock.environment, "DATA_DIR": tmp_path / "data", "CHILD_STEP_SECONDS": 1}
    with light(**settings) as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted(steps=50, timeout_seconds=3)
        await service.line("job_started")
        service.kill()
    clock.set(-DAY)
    with light(**settings) as service:
        client = await client_of(service)
        end = await client.ended(job)
    assert (end["state"], end["error"]["code"]) == ("failed", "timeout")


async def test_a_clock_set_ahead_while_it_was_down_ends_jobs_with_a_reason(
    light, client_of, clock, tmp_path
):
    """Nobody can tell it from a day that passed: their time is over, and they say so."""
    settings = {**clock.environment, "DATA_DIR": tmp_path / "data"}
    with light(CHILD_STEP_SECONDS=1, **settings) as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted(steps=50)
        await service.line("job_started")
        service.kill()
    clock.set(DAY)
    with light(**settings) as service:
        client = await client_of(service)
        end = await client.ended(job)
    assert (end["state"], end["error"]["code"]) == ("failed", "timeout")
