"""The pipe to a child, from both of its ends."""

import asyncio
import os
import socket

from service.config.table import Config
from service.core.stage import Stage
from service.engine.channel import COMMANDS, EVENTS, Channel
from service.engine.process.child import Child
from service.engine.protocol import Cancel, Command, EngineEvent, StageStarted

WAIT_SECONDS = 30.0
LAST = 100


def deaf(pipe: Channel[EngineEvent, Command], _config: Config) -> None:
    """Read nothing any more, and speak on for a while."""
    with socket.socket(fileno=os.dup(pipe.pipe.fileno())) as end:
        end.shutdown(socket.SHUT_RD)
    for number in range(LAST + 1):
        pipe.send(StageStarted(stage=Stage.LOAD, images=number))


async def test_a_child_that_cannot_be_written_to_is_heard_to_its_end():
    """Else its end would never be told."""
    heard: asyncio.Queue[int] = asyncio.Queue()
    ended = asyncio.Event()
    child: Child[Command, EngineEvent] = Child(deaf, Config(), "0", sent=COMMANDS, received=EVENTS)

    def hear(said: EngineEvent) -> None:
        assert isinstance(said, StageStarted)
        heard.put_nowait(said.images)
        child.send(Cancel(job_id="nobody"))

    await child.start(hear, ended.set)
    async with asyncio.timeout(WAIT_SECONDS):
        await ended.wait()
    assert [heard.get_nowait() for _ in range(heard.qsize())] == [*range(LAST + 1)]
    assert child.exit_code == 0
