"""Two engines behind one queue."""

import pytest

from service.config.table import Config
from service.jobs.dispatch.dispatcher import Dispatcher
from tests.support.jobs.scripted_engine import ScriptedEngine


class SecondEngine(ScriptedEngine):
    """Also writes down previews, and can fall silent."""

    quiet = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.watched: set[str] = set()

    def preview(self, job_id: str, *, wanted: bool) -> None:
        (self.watched.add if wanted else self.watched.discard)(job_id)

    @property
    def silence(self) -> float:
        return self.quiet

    @property
    def late(self) -> bool:
        return self.quiet > 0


@pytest.fixture
def engines() -> tuple[SecondEngine, SecondEngine]:
    """Return two engines whose events the test decides."""
    return SecondEngine(), SecondEngine()


@pytest.fixture
async def pair(engines, metrics):
    """Start a dispatcher over two engines that run one image each; both are ready."""
    config = Config(max_concurrent_requests=1, queue_size=4, shutdown_timeout_seconds=60)
    started = Dispatcher(engines, metrics, config)
    await started.start()
    for engine in engines:
        await engine.ready()
    yield started
    await started.stop()
