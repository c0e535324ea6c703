"""An engine process that is obedient, and what it says."""

import asyncio

import pytest

from service.config.table import Config
from service.core.events import Stepped
from service.core.spec import GenerationSpec
from service.engine.process.parent import ProcessEngine
from service.engine.protocol import EngineExited, EngineReady, Event, StageStarted
from tests.unit.engine.process import children

WAIT_SECONDS = 30.0
MOST_EXITS = 10
CONFIG = Config()
REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3)


class Heard:
    """What the engine told, one event after the other."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self):
        return await asyncio.wait_for(self.events.get(), WAIT_SECONDS)

    async def end(self):
        """Return the next event that ends something."""
        while isinstance(event := await self.next(), (StageStarted, Stepped)):
            pass
        return event

    async def works_again(self, engine: ProcessEngine) -> None:
        exits = []
        while not isinstance(event := await self.end(), EngineReady):
            assert isinstance(event, EngineExited)
            exits.append(event)
            # Children that cannot live would be started for ever.
            assert len(exits) < MOST_EXITS, exits
        engine.generate("works", REQUEST, 1)
        assert await self.end() == children.finished("works", REQUEST)

    def __call__(self, event) -> None:
        self.events.put_nowait(event)


@pytest.fixture
def heard() -> Heard:
    """Collect events."""
    return Heard()


@pytest.fixture
async def engine(heard):
    """Start an obedient child and wait until it is ready."""
    started = ProcessEngine(CONFIG, entry=children.obedient)
    await started.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    yield started
    await started.stop()
