"""Models of an engine without models: loaded one at a time, evicted by value, parked in host."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from service.core.capacity import Resident, giving_way
from service.core.events import (
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    UnloadReason,
)
from service.core.model import ModelInfo
from service.engine.protocol import Event
from service.errors import ModelError, OutOfMemory
from service.models.defaults.known import UNKNOWN, Known
from service.models.served.catalog import ModelCatalog, Served

DEFAULT: Final = ""


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    """A model that can be asked for."""

    info: ModelInfo
    size: int = 1
    """Bytes."""
    load_seconds: float | None = 0.0
    """None: it loads until ``FakeModels.finish`` is called."""
    parked_seconds: float = 0.0
    """To come back from host memory."""
    error: str = ""
    """Why it cannot be loaded."""


def catalog_with(*names: str) -> ModelCatalog:
    """Return a catalogue of these models next to the default one."""
    return ModelCatalog(
        Served(known=UNKNOWN), [Served(known=Known(model_id=name)) for name in names]
    )


class FakeModels:
    """What the pool of the real engine does with models, by the event loop's clock.

    ``room`` and ``host_room`` are bytes of the device and of parked models. ``busy`` returns the
    models that have jobs.
    """

    def __init__(
        self,
        known: Mapping[str, FakeModel],
        *,
        room: int,
        host_room: int = 0,
        tell: Callable[[Event], None],
        busy: Callable[[], Collection[str]],
    ) -> None:
        self._known = known
        self._room, self._host_room = room, host_room
        self._tell, self._busy = tell, busy
        self.device: dict[str, Resident] = {}
        self.host: dict[str, Resident] = {}
        self.wanted: list[str] = []
        """Loads that were asked for; the first one may have begun."""
        self._began: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Have the default model, and nothing else."""
        self.forget()
        self._put(DEFAULT)

    def forget(self) -> None:
        """End as a killed process does."""
        if self._timer is not None:
            self._timer.cancel()
        self.device, self.host, self.wanted = {}, {}, []
        self._began = self._timer = None

    def load(self, model_id: str) -> None:
        """Load a model when its turn comes and there is room."""
        if model_id in self.device:
            self._tell(ModelLoaded(model_id=model_id, model=self._known[model_id].info, seconds=0))
        elif model_id not in self.wanted:
            self.wanted.append(model_id)
            self.pump()

    def unload(self, model_id: str, reason: UnloadReason) -> None:
        """Free the memory of a model that has no jobs."""
        if model_id in self.device and model_id not in self._busy():
            self._leave(model_id, reason)
            self._resident()
        elif self.host.pop(model_id, None):
            self._resident()

    def touch(self, model_id: str) -> None:
        """Count a model as used now."""
        if model_id in self.device:
            self.device[model_id].used = self._now

    def pump(self) -> None:
        """Begin the next load if there is room for it; call it when a job has ended."""
        if self._began is not None or not self.wanted:
            return
        model = self._known[self.wanted[0]]
        lack = sum(each.size for each in self.device.values()) + model.size - self._room
        victims = giving_way(lack, self.device, keep=self._busy(), now=self._now)
        if victims is None:
            if model.size > self._room:
                self._failed(OutOfMemory.code, "It does not fit into memory.")
            return
        for each in victims:
            self._leave(each, UnloadReason.MEMORY)
        if victims:
            self._resident()
        self._began = self._now
        self._tell(ModelLoading(model_id=self.wanted[0]))
        parked = self.wanted[0] in self.host
        seconds = model.parked_seconds if parked else model.load_seconds
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.finish)

    def finish(self) -> None:
        """End the load that has begun."""
        if self._began is None:
            return
        name, seconds = self.wanted[0], self._now - self._began
        model = self._known[name]
        self._began = None
        if model.error:
            self._failed(ModelError.code, model.error)
            return
        del self.wanted[0]
        parked = self.host.pop(name, None) is not None
        self._put(name)
        said = ModelLoaded(model_id=name, model=model.info, seconds=seconds, parked=parked)
        self._tell(said)
        self._resident()
        self.pump()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _failed(self, code: str, detail: str) -> None:
        self._tell(ModelFailed(model_id=self.wanted.pop(0), code=code, detail=detail))
        self.pump()

    def _put(self, name: str) -> None:
        model = self._known[name]
        self.device[name] = Resident(
            size=model.size, load_seconds=model.load_seconds or 0.0, used=self._now
        )

    def _leave(self, name: str, reason: UnloadReason) -> None:
        left = self.device.pop(name)
        if reason == UnloadReason.MEMORY:
            lack = sum(each.size for each in self.host.values()) + left.size - self._host_room
            if (gone := giving_way(lack, self.host, keep=(), now=self._now)) is not None:
                for each in gone:
                    del self.host[each]
                self.host[name] = left
        self._tell(ModelUnloaded(model_id=name, reason=reason))

    def _resident(self) -> None:
        self._tell(
            ModelsResident(
                device={name: each.size for name, each in self.device.items()},
                host={name: each.size for name, each in self.host.items()},
            )
        )
