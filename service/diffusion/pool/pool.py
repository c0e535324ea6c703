"""The models of one engine: each draws in a loop of its own, one is loaded at a time."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import structlog

from service.core.capacity import Capacity
from service.core.events import (
    MODEL_NOT_LOADED,
    AdaptersChanged,
    BatchCalibrated,
    JobFailed,
    ModelFailed,
    ModelLoaded,
    StepBaseline,
    Stepped,
    UnloadReason,
)
from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.diffusion.loop.step_loop import Fault
from service.diffusion.memory.usage import is_device_lost, is_out_of_memory
from service.diffusion.pool.background import Background, Waiting
from service.diffusion.pool.member import Member
from service.diffusion.pool.opener import Opener
from service.diffusion.pool.residents import Residents, Said
from service.errors import ModelError, OutOfMemory, ServiceError
from service.system.malloc import Housekeeping

log = structlog.get_logger(__name__)

BEAT_SECONDS: Final = 1.0
"""Between two signs of life while nothing but a load is waited for."""


class ModelPool:
    """The models that draw, and the one that is being loaded.

    ``step`` gives a turn to the loop that had the least time, and takes the load a step further.
    Files are read and weights moved on threads; everything else happens between two steps. The
    pool holds the only reference to a model, so that one which leaves it frees its memory.
    """

    def __init__(
        self,
        residents: Residents,
        opener: Opener,
        background: Background,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._residents, self._opener, self._background = residents, opener, background
        self._clock = clock
        self._wanted: list[str] = []
        """Models to load; the first one's load may have begun."""
        self._load: Waiting[None] | None = None
        self._unwanted: dict[str, UnloadReason] = {}
        """Models to take out of memory when nothing is loaded."""
        self._leaving: Waiting[None] | None = None
        """One of them on its way out."""
        residents.hurry = self._end_leaving
        self._watched: set[str] = set()
        """Jobs whose previews are wanted."""
        self._outbox = residents.said
        self._adapters = opener.adapters.held
        self._beat = float("-inf")
        self._housekeeping = Housekeeping()

    @property
    def busy(self) -> bool:
        """Whether ``step`` has anything to do or to report."""
        leaving = self._unwanted or self._leaving
        return bool(self._outbox or self._wanted or leaving or self._residents.busy)

    @property
    def loading(self) -> bool:
        """Whether a thread reads or moves a model."""
        return self._background.active

    def add(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: EngineInputs | None = None,
    ) -> None:
        """Take a job in; it fails at once where its model is not loaded."""
        member = self._residents.members.get(request.model)
        if member is None:
            detail = "The model left memory before the request came."
            said = JobFailed(job_id=job_id, epoch=epoch, code=MODEL_NOT_LOADED, detail=detail)
            self._outbox.append(said)
            return
        if not member.loop.busy:
            # It has no claim to the time in which it had nothing to do.
            others = [each.spent for each in self._residents.busy.values()]
            member.spent = max(member.spent, min(others, default=0.0))
        self._residents.free_for(member, request)
        if job_id in self._watched:
            member.loop.previews.watch(job_id, wanted=True)
        member.used = self._clock()
        member.loop.add(job_id, request, epoch, inputs)

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step; unknown ids are ignored."""
        for member in self._residents.members.values():
            member.loop.cancel(job_id)

    def interrupt(self, job_id: str) -> None:
        """End a job early, with its unfinished images; unknown ids are ignored."""
        for member in self._residents.members.values():
            member.loop.interrupt(job_id)

    def watch(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to make previews of a job, whether it is here yet or not."""
        (self._watched.add if wanted else self._watched.discard)(job_id)
        for member in self._residents.members.values():
            member.loop.previews.watch(job_id, wanted=wanted)

    def load(self, name: str) -> None:
        """Load a model when its turn comes and there is room; at once if it is here."""
        self._unwanted.pop(name, None)
        if (member := self._residents.members.get(name)) is not None:
            member.used = self._clock()
            self._outbox.append(_loaded(member, 0.0))
        elif name not in self._wanted:
            self._wanted.append(name)

    def unload(self, name: str, reason: UnloadReason) -> None:
        """Free the memory of a model without jobs, or of one that is parked; others draw on."""
        residents = self._residents
        if name in residents.members:
            self._unwanted[name] = reason
            self._let_go()
        elif name in residents.parked and name not in self._wanted:
            residents.parked.pop(name).leave()

    def step(self) -> list[Said]:
        """Give one loop its turn, take the load further; report what happened.

        Raises:
            Exception: as ``StepLoop.step`` does.

        """
        busy = self._residents.busy
        if busy:
            self._outbox += self._turn(min(busy.values(), key=lambda each: each.spent))
        elif self._wanted or self._leaving is not None:
            self._wait()
        self._let_go()
        if self._load is None and self._leaving is None and self._wanted:
            self._load = self._loading(self._wanted[0])
        if self._load is not None:
            try:
                next(self._load)
            except StopIteration:
                self._load = None
        said = list(self._outbox)
        self._outbox.clear()
        return said

    def news(self) -> list[Said]:
        """Return what changed in memory since this was called last."""
        said: list[Said | None] = [
            *(self._capacity(member) for member in self._residents.members.values()),
            self._adapters_changed(),
            self._residents.news(),
        ]
        return [each for each in said if each is not None]

    def tidy(self) -> None:
        """Give back host memory that finished images left behind: now if idle, else seldom."""
        self._housekeeping.tidy(idle=not self.busy)

    def _let_go(self) -> None:
        """Take models that nobody wants out of memory, one after the other, a look at a time."""
        while self._load is None and (self._unwanted or self._leaving is not None):
            if self._leaving is None:
                name = next(iter(self._unwanted))
                reason = self._unwanted.pop(name)
                if name not in self._residents.members or name in self._residents.busy:
                    continue
                self._leaving = self._residents.evict([name], reason)
            try:
                next(self._leaving)
            except StopIteration:
                self._leaving = None
            else:
                return

    def _end_leaving(self) -> None:
        """Wait until the model that is on its way out has left."""
        while self._leaving is not None:
            self._background.rest()
            self._let_go()

    def _turn(self, member: Member) -> list[Said]:
        started = self._clock()
        said = _tagged(member.loop.step(), member.name)
        member.used = self._clock()
        member.spent += member.used - started
        return said

    def _wait(self) -> None:
        """Let the load go on, with nothing else to do, and say that this process lives."""
        if self._clock() - self._beat > BEAT_SECONDS:
            self._beat = self._clock()
            self._opener.fault(Stage.LOAD, 0)
        self._background.rest()

    def _loading(self, name: str) -> Waiting[None]:
        """Load a model, and say how that ended."""
        started, parked = self._clock(), name in self._residents.parked
        log.info("model_load_started", model_id=self._opener.title(name), parked=parked)
        taught: list[Said] = []
        member = None
        self._residents.begin(name)
        try:
            member = yield from self._opened(name)
            if not parked:
                taught = yield from self._tried_out(member)
        except Exception as error:
            if is_device_lost(error):
                raise
            if member is not None and not parked:
                member.leave()
            self._outbox.append(_failed(name, self._opener.title(name), error))
        else:
            self._residents.parked.pop(name, None)
            self._residents.admit(member)
            self._outbox += [_loaded(member, self._clock() - started, parked=parked), *taught]
        self._wanted.remove(name)

    def _opened(self, name: str) -> Waiting[Member]:
        """Return a model whose weights are where it computes, and say when there is room for it.

        From then on the service starts jobs of other models again. One that has to be brought to
        a device is read before others leave it.
        """
        residents = self._residents
        member = residents.parked.get(name)
        if member is None:
            needed = yield from self._background.run(lambda _begin: self._opener.needed(name))
            if not residents.movable:
                yield from residents.room(name, needed)
            if not residents.movable or residents.fits(needed):
                residents.reading()
            member = yield from residents.with_room(self._reading(name))
        if not member.movable:
            return member
        try:
            yield from residents.room(name, member.size, member.need())
            residents.reading()
            yield from residents.with_room(_placing(member))
        except Exception:
            member.park()  # A part of it may have come to the device.
            raise
        return member

    def _reading(self, name: str) -> Callable[[Fault], Member]:
        def read(begin: Fault) -> Member:
            begin(Stage.LOAD, 0)
            return self._opener.open(name, begin)

        return read

    def _tried_out(self, member: Member) -> Waiting[list[Said]]:
        """Make the trial images of a new model between the steps of others."""
        self._residents.connect(member)
        log.info("model_trial_started", model_id=self._opener.title(member.name))
        trial = self._opener.trial(member.loop)
        while True:
            self._opener.fault(Stage.LOAD, 0)  # A first image takes longer than a usual step.
            try:
                next(trial)
            except StopIteration as end:
                return _tagged(end.value, member.name)
            yield

    def _capacity(self, member: Member) -> Capacity | None:
        """Return what an image of a model may take, if that changed: idle models count as free."""
        capacity, idle = member.loop.budget.news(), self._residents.idle_bytes(member)
        if capacity is None and idle != member.told:
            capacity = member.loop.budget.capacity()
        if capacity is None:
            return None
        member.told = idle
        return replace(capacity, available=capacity.available + idle, model_id=member.name)

    def _adapters_changed(self) -> AdaptersChanged | None:
        """Return what became of the adapters of all models."""
        residents, held = self._residents, self._opener.adapters.held
        members = [*residents.members.values(), *residents.parked.values()]
        found = [each for member in members if (each := member.loop.adapters.news())]
        if not found and held == self._adapters:
            return None
        self._adapters = held
        return AdaptersChanged(
            load_seconds=tuple(seconds for each in found for seconds in each.load_seconds),
            failures=sum(each.failures for each in found),
            evictions=sum(each.evictions for each in found),
            held=held,
        )


def _tagged(said: Iterable[Said], name: str) -> list[Said]:
    """Name the model that the numbers are of."""
    kinds = (Stepped, Capacity, StepBaseline, BatchCalibrated)
    return [replace(each, model_id=name) if isinstance(each, kinds) else each for each in said]


def _placing(member: Member) -> Callable[[Fault], None]:
    return lambda _begin: member.place()


def _loaded(member: Member, seconds: float, *, parked: bool = False) -> ModelLoaded:
    loop = member.loop
    return ModelLoaded(
        model_id=member.name,
        model=loop.model.info,
        seconds=seconds,
        parked=parked,
        memory=loop.meter.use(),
    )


def _failed(name: str, title: str, error: Exception) -> ModelFailed:
    code, detail = ModelError.code, f"The model {title} cannot be loaded ({type(error).__name__})."
    if isinstance(error, ServiceError):
        code, detail = error.code, error.detail
    elif is_out_of_memory(error):
        code, detail = OutOfMemory.code, f"The model {title} does not fit into memory."
    log.error("model_failed", model_id=title, code=code, error=f"{type(error).__name__}: {error}")
    transient = isinstance(error, ModelError) and error.transient
    return ModelFailed(model_id=name, code=code, detail=detail, transient=transient)
