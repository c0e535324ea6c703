"""An engine process without a model: real commands, events, batches and deaths, and no torch.

``FAKE_JOB_SECONDS=0.2 python -m tests.support.fake_worker serve`` is the service with such engines;
``ProcessEngine(config, entry=FakeWorker())`` is one of them. It is the engine's own program in all
but the model: an image costs the same seconds whatever its size, and those of a batch add up.
"""

import os
import sys
import time
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from service.config.table import Config
from service.core.events import (
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelFailed,
    ModelLoaded,
    OutOfMemoryHit,
    Stepped,
    UnloadReason,
)
from service.core.image import RawImage
from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.core.stage import Stage, StageTimes
from service.engine.channel import Channel
from service.engine.process import worker
from service.engine.protocol import Command, EngineEvent, EngineReady, StageStarted
from service.errors import ModelError, OutOfMemory
from tests.support.simulation.fake_engine import FAKE_MODEL, gradient, preview

JOB_SECONDS = "FAKE_JOB_SECONDS"
LOAD_SECONDS = "FAKE_LOAD_SECONDS"


@dataclass(frozen=True, kw_only=True)
class FakeWorker:
    """What the child runs."""

    job_seconds: float = 0.2
    """For one image, all its steps together."""
    load_seconds: float = 0.0

    def __call__(self, channel: Channel[EngineEvent, Command], config: Config) -> None:
        """Work as the engine does until told to stop or the service is gone."""
        worker.run(channel, config, self.start)

    def start(self, config: Config, send: worker.Send) -> tuple[Any, list[EngineEvent]]:
        """Load, which takes its seconds."""
        send(StageStarted(stage=Stage.LOAD))
        time.sleep(self.load_seconds)
        begin = worker.announcing(config, send)
        return FakePool(self.job_seconds, begin), [EngineReady(model=FAKE_MODEL)]


@dataclass(kw_only=True)
class Row:
    """A job in the batch."""

    job_id: str
    epoch: int
    request: GenerationSpec
    inputs: EngineInputs | None
    done: int = 0
    """Steps."""
    spent: float = 0.0
    """Seconds of its steps."""
    ending: bool = False
    """Whether it ends after the next step."""

    @property
    def over(self) -> bool:
        return self.done >= self.request.total_steps or (self.ending and self.done > 0)


class FakePool:
    """All jobs in one batch, whose steps take their time; images are gradients of the seed."""

    def __init__(self, job_seconds: float, begin: worker.Begin) -> None:
        self._job_seconds, self._begin = job_seconds, begin
        self._rows: dict[str, Row] = {}
        self._said: list[EngineEvent] = []
        self._watched: set[str] = set()
        self.loading = False

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._said)

    def add(
        self, job_id: str, request: GenerationSpec, epoch: int, inputs: EngineInputs | None
    ) -> None:
        self._rows[job_id] = Row(job_id=job_id, request=request, epoch=epoch, inputs=inputs)

    def cancel(self, job_id: str) -> None:
        if (row := self._rows.pop(job_id, None)) is not None:
            times = StageTimes(denoise=row.spent)
            self._said.append(
                JobCancelled(job_id=job_id, epoch=row.epoch, steps_done=row.done, times=times)
            )

    def interrupt(self, job_id: str) -> None:
        if job_id in self._rows:
            self._rows[job_id].ending = True

    def watch(self, job_id: str, *, wanted: bool) -> None:
        (self._watched.add if wanted else self._watched.discard)(job_id)

    def load(self, name: str) -> None:
        """Have the default model; there is no other."""
        if name:
            detail = "There is no such model."
            self._said.append(ModelFailed(model_id=name, code=ModelError.code, detail=detail))
        else:
            self._said.append(ModelLoaded(model_id=name, model=FAKE_MODEL, seconds=0.0))

    def unload(self, name: str, reason: UnloadReason) -> None:
        """Keep the model: there is no other."""

    def news(self) -> tuple[EngineEvent, ...]:
        return ()

    def tidy(self) -> None:
        """Leave nothing behind."""

    def step(self) -> Iterator[EngineEvent]:
        """Say what is to be said; then move all jobs by a step."""
        yield from self._said
        self._said.clear()
        rows = list(self._rows.values())
        if rows and (yield from self._survived(Stage.DENOISE, rows)):
            yield from self._move(rows)
        for row in rows:
            if row.over and (yield from self._survived(Stage.VAE_DECODE, [row])):
                yield self._finished(row)

    def _move(self, rows: list[Row]) -> Iterator[EngineEvent]:
        shares = {
            row.job_id: self._job_seconds * row.request.num_images / row.request.total_steps
            for row in rows
            if not row.over  # Of an image that is hardly redrawn there are no steps at all.
        }
        if not shares:
            return
        seconds = sum(shares.values())
        time.sleep(seconds)
        moved = [row for row in rows if row.job_id in shares]
        for row in moved:
            row.done += 1
            row.spent += shares[row.job_id]
        yield Stepped(
            progress={row.job_id: row.done for row in moved},
            batch_size=_images(moved),
            pixels=sum(row.request.largest_pixels * row.request.num_images for row in moved),
            seconds=seconds,
            shares=shares,
            epochs={row.job_id: row.epoch for row in moved},
        )
        for row in moved:
            if row.job_id in self._watched:
                yield preview(row.job_id, row.request, row.done, row.epoch)

    def _survived(self, stage: Stage, rows: list[Row]) -> Generator[EngineEvent, None, bool]:
        """Commit the faults; without memory the jobs fail."""
        try:
            self._begin(stage, _images(rows))
        except MemoryError as error:
            yield OutOfMemoryHit(stage=stage, batch_size=_images(rows))
            for row in rows:
                del self._rows[row.job_id]
                yield JobFailed(
                    job_id=row.job_id, epoch=row.epoch, code=OutOfMemory.code, detail=str(error)
                )
            return False
        return True

    def _finished(self, row: Row) -> JobFinished:
        del self._rows[row.job_id]
        return JobFinished(
            job_id=row.job_id,
            epoch=row.epoch,
            images=drawn(row.request, row.inputs),
            times=StageTimes(denoise=row.spent),
            interrupted_after=row.done if row.done < row.request.total_steps else None,
        )


def drawn(request: GenerationSpec, inputs: EngineInputs | None = None) -> tuple[RawImage, ...]:
    """Return a gradient for each seed, which depends on the prompt and on the input images."""
    mixed = zlib.crc32(request.prompt.encode())
    if inputs is not None:
        mixed = zlib.crc32(inputs.mask, zlib.crc32(inputs.image, mixed))
    width, height = request.drawn_size
    sized = replace(request, width=width, height=height)
    return tuple(replace(gradient(sized, seed ^ mixed), seed=seed) for seed in request.seeds)


def _images(rows: list[Row]) -> int:
    return sum(row.request.num_images for row in rows)


def run(channel: Channel[EngineEvent, Command], config: Config) -> None:
    """Work at the pace that the environment says."""
    fake = FakeWorker(
        job_seconds=float(os.environ.get(JOB_SECONDS, "0.2")),
        load_seconds=float(os.environ.get(LOAD_SECONDS, "0")),
    )
    fake(channel, config)


def main() -> int:
    """Run the service with such engines."""
    from service.__main__ import main as service  # noqa: PLC0415 - the child needs none of it
    from service.engine.process.parent import ProcessEngine  # noqa: PLC0415
    from tests.support import fake_worker  # noqa: PLC0415 - the child finds it by this name

    defaults = ProcessEngine.__init__.__kwdefaults__
    assert defaults is not None
    defaults["entry"] = fake_worker.run
    return service()


if __name__ == "__main__":
    sys.exit(main())
