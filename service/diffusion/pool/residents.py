"""The models in memory: room for another one, eviction, parking."""

import time
from collections.abc import Callable, Collection
from typing import Final, TypeVar

import structlog

from service.core.capacity import Capacity, giving_way
from service.core.events import (
    AdaptersChanged,
    BatchCalibrated,
    LoopEvent,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    StepBaseline,
    UnloadReason,
)
from service.core.spec import GenerationSpec
from service.core.work import image_places
from service.diffusion.loop.step_loop import Fault
from service.diffusion.memory.usage import free_cache, is_out_of_memory
from service.diffusion.pool.background import Background, Waiting
from service.diffusion.pool.member import Member
from service.errors import GpuBusy, GpuTooSmall, OutOfMemory
from service.system import host_memory

T = TypeVar("T")
GIB: Final = 2**30
Available = Callable[[], int | None]
Said = (
    LoopEvent
    | Capacity
    | StepBaseline
    | BatchCalibrated
    | AdaptersChanged
    | ModelLoading
    | ModelLoaded
    | ModelFailed
    | ModelUnloaded
    | ModelsResident
)

log = structlog.get_logger(__name__)


class Residents:
    """The models in memory by name: those that can draw, and those that are parked.

    ``host_budget``, in bytes, is for parked models. Where models compute in host memory nothing is
    parked, and it is for all models, though one alone may take more. A model with jobs stays.
    """

    def __init__(
        self,
        first: Member,
        background: Background,
        *,
        host_budget: int,
        host_available: Available = host_memory.available,
        device_available: Available | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._background = background
        self._host_budget, self._host_available = host_budget, host_available
        self._device = first.loop.model.device
        self.movable = first.movable
        """Whether weights can be parked."""
        self._device_available = device_available or first.loop.meter.available
        self._clock = clock
        self.members: dict[str, Member] = {}
        self.parked: dict[str, Member] = {}
        self.said: list[Said] = []
        """Not reported yet, by whomever."""
        self.coming = ""
        """Name of the model that is being loaded: it stays parked meanwhile."""
        self.hurry: Callable[[], None] = lambda: None
        """Ends what frees memory by and by, because it is needed now."""
        self._read = False
        """Whether the service was told that the model is read."""
        self._reported = ModelsResident()
        self.admit(first)

    @property
    def busy(self) -> dict[str, Member]:
        """The models that have jobs."""
        return {name: member for name, member in self.members.items() if member.loop.busy}

    def idle_bytes(self, member: Member) -> int:
        """Return what all others without jobs take."""
        others = self.members.keys() - self.busy.keys() - {member.name}
        return sum(self.members[name].size for name in others)

    def connect(self, member: Member) -> None:
        """Let a loop know of the others: they may give memory, or take it while it measures."""
        member.loop.meter.disturbed = lambda: self._background.active
        member.loop.relieve = lambda: self._relieve(member.name)

    def admit(self, member: Member) -> None:
        """Let a model draw."""
        self.connect(member)
        member.used = self._clock()
        self.members[member.name] = member

    def news(self) -> ModelsResident | None:
        """Return what is in memory, if that has changed since this was called last."""
        held = {name: member.size for name, member in self.members.items()}
        parked = {name: member.size for name, member in self.parked.items()}
        now = ModelsResident(
            device=held if self.movable else {}, host=parked if self.movable else held
        )
        if now == self._reported:
            return None
        self._reported = now
        return now

    def begin(self, name: str) -> None:
        """Begin to load a model."""
        self.coming, self._read = name, False

    def reading(self) -> None:
        """Tell the service that there is room: it starts jobs of other models again."""
        if not self._read:
            self._read = True
            self.said.append(ModelLoading(model_id=self.coming))

    def _hold(self) -> None:
        """Ask the service to start nothing until there is room."""
        if self._read:
            self._read = False
            log.info("model_load_waits", model_id=self.coming, jobs_of=sorted(self.busy))
            self.said.append(ModelLoading(model_id=self.coming, room=False))

    def with_room(self, work: Callable[[Fault], T]) -> Waiting[T]:
        """Do work on a thread, again with fewer models next to it while memory runs out.

        Where all of them have jobs it waits: the service gives them no more.

        Raises:
            Exception: what the work raises.

        """
        while True:
            try:
                return (yield from self._background.run(work))
            except Exception as error:
                short = is_out_of_memory(error) or isinstance(error, GpuBusy | GpuTooSmall)
                of_host = isinstance(error.__cause__ or error, MemoryError)
                droppable = self.movable and of_host and self.parked.keys() - {self.coming}
                if not short or not (self.members or droppable):
                    raise
                log.warning("model_load_out_of_memory", error=str(error))
            # Outside the handler: the error's frames keep what did not fit.
            free_cache(self._device)
            if self.movable and of_host and self._drop_parked(1):
                continue
            while (victims := self._least_valuable(1)) is None:
                self._hold()
                yield
            yield from self.evict(victims, UnloadReason.MEMORY)
            self.reading()

    def fits(self, size: int) -> bool:
        """Whether a model fits next to those that are here."""
        return self._lack(size, 0) <= 0

    def room(self, name: str, size: int, need: int = 0) -> Waiting[None]:
        """Make room for a model and one image.

        ``need`` is what an image of the new model takes, 0 if that is not known. Models with jobs
        are waited for: the service gives them no more.

        Raises:
            OutOfMemory: it would not fit with no other model in memory.

        """
        while (lack := self._lack(size, need)) > 0:
            victims = self._least_valuable(lack)
            if victims is None and self.busy:
                self._hold()
                yield
                continue
            if victims is None:
                self._demand_possible(name, size)
                victims = list(self.members)
            if not victims:
                return
            yield from self.evict(victims, UnloadReason.MEMORY)

    def evict(self, names: Collection[str], reason: UnloadReason) -> Waiting[None]:
        """Park models, on a thread, or drop them."""
        for name in names:
            self.said.append(ModelUnloaded(model_id=name, reason=reason))
            member = self.members.pop(name)
            if reason != UnloadReason.ASKED and self._may_park(member):
                member.loop.adapters.leave_device()
                yield from self._background.run(_parking(member))
                self.parked[name] = member
            else:
                member.leave()
            del member
        free_cache(self._device)

    def evict_now(self, names: Collection[str], reason: UnloadReason) -> None:
        """Park or drop models, and wait for it."""
        for _ in self.evict(names, reason):
            self._background.rest()

    def free_for(self, member: Member, request: GenerationSpec) -> None:
        """Evict models without jobs that an image would not fit next to."""
        capacity = member.loop.budget.capacity() if len(self.members) > 1 else None
        if capacity is None:
            return
        need = member.need(request.largest_pixels, image_places(request))
        if victims := self._least_valuable(need - capacity.available, {member.name}):
            self.evict_now(victims, UnloadReason.MEMORY)

    def _relieve(self, name: str) -> None:
        """Evict all models without jobs, because memory ran out for another."""
        self.hurry()
        if idle := self.members.keys() - self.busy.keys() - {name}:
            self.evict_now(sorted(idle), UnloadReason.MEMORY)

    def _lack(self, size: int, need: int) -> int:
        """Return the bytes that are missing for a model and one image of any."""
        need = max([need, *(each.need() for each in self.members.values())])
        held = self._held
        over = 0 if self.movable else min(held + size - self._host_budget, held)
        free = self._free
        return max(over, 0 if free is None else size + need - free)

    @property
    def _held(self) -> int:
        return sum(each.size for each in self.members.values())

    @property
    def _free(self) -> int | None:
        return self._device_available() if self.movable else self._host_available()

    def _demand_possible(self, name: str, size: int) -> None:
        free, held = self._free, self._held
        if free is not None and size > free + held:
            raise OutOfMemory(
                f"The model {name} takes {size / GIB:.2f} GB, and there are "
                f"{(free + held) / GIB:.2f} GB. Use a smaller model."
            )

    def _least_valuable(self, lack: int, keep: Collection[str] = ()) -> list[str] | None:
        return giving_way(lack, self.members, keep={*self.busy, *keep}, now=self._clock())

    def _may_park(self, member: Member) -> bool:
        """Whether host memory has room for a model; less valuable ones there give way."""
        if not member.movable:
            return False
        held = sum(each.size for each in self.parked.values())
        lack = held + member.size - self._host_budget
        self._drop_parked(lack)
        held = sum(each.size for each in self.parked.values())
        available = self._host_available()
        fits = available is None or member.size <= available
        return fits and held + member.size <= self._host_budget

    def _drop_parked(self, lack: int) -> list[str]:
        """Drop the least valuable parked models for so many bytes; return which."""
        gone = giving_way(lack, self.parked, keep={self.coming}, now=self._clock()) or []
        for name in gone:
            self.parked.pop(name).leave()
        return gone


def _parking(member: Member) -> Callable[[Fault], None]:
    return lambda _begin: member.park()
