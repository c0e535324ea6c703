"""Images in memory: the twin of the files that tests run against."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.images.encoded import Encoded
from service.jobs.results.base import (
    GRACE_SECONDS,
    ResultStore,
    Sizes,
    demand_id,
    demand_index,
    full,
    removed,
)
from service.jobs.store.clock import SteadyClock


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The images of one job."""

    images: tuple[Encoded, ...]
    metadata: str
    written: float

    @property
    def size(self) -> int:
        return sum(len(one.data) for one in self.images) + len(self.metadata)


class MemoryResults(ResultStore):
    """Images of finished jobs in a dictionary, at most ``room`` bytes of them."""

    def __init__(
        self,
        *,
        room: int = 2**30,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._room, self._grace = room, grace_seconds
        self._clock = clock or SteadyClock()
        self._kept: dict[str, _Kept] = {}
        self.removed_bytes = 0
        self.damaged = 0

    async def open(self) -> None:
        return

    async def write(
        self, job_id: str, images: Sequence[Encoded], metadata: Mapping[str, Any]
    ) -> int:
        demand_id(job_id)
        made = _Kept(images=(*images,), metadata=json.dumps(metadata), written=self._clock())
        if made.size > await self.room_bytes():
            raise full()
        self._kept[job_id] = made
        return made.size

    async def read(
        self,
        job_id: str,
        index: int = 0,
        sizes: Sizes = (),
        *,
        owner: str = "",
    ) -> Encoded:
        images = self._of(job_id).images
        demand_index(index, len(images))
        return images[index]

    async def metadata(self, job_id: str) -> Any:
        return json.loads(self._of(job_id).metadata)

    async def delete(self, job_id: str) -> bool:
        demand_id(job_id)
        gone = self._kept.pop(job_id, None)
        self.removed_bytes += gone.size if gone else 0
        return gone is not None

    async def sweep(
        self, max_age_seconds: float, max_bytes: int, inputs: Mapping[str, int] | None = None
    ) -> list[str]:
        swept: list[str] = []
        for job_id in self._oldest():
            others = sum(size for each, size in (inputs or {}).items() if each not in swept)
            full = await self.used_bytes() + others > max_bytes
            old = self._age(job_id) > max_age_seconds or full
            if old and self._age(job_id) >= self._grace and await self.delete(job_id):
                swept.append(job_id)
        return swept

    async def clean(self, known: Collection[str]) -> list[str]:
        unknown = [each for each in self._oldest() if each not in known]
        return [
            each for each in unknown if self._age(each) >= self._grace and await self.delete(each)
        ]

    async def used_bytes(self) -> int:
        return sum(one.size for one in self._kept.values())

    async def room_bytes(self) -> int:
        return self._room - await self.used_bytes()

    def _of(self, job_id: str) -> _Kept:
        demand_id(job_id)
        if job_id not in self._kept:
            raise removed()
        return self._kept[job_id]

    def _age(self, job_id: str) -> float:
        return self._clock() - self._kept[job_id].written

    def _oldest(self) -> list[str]:
        return sorted(self._kept, key=lambda each: (-self._age(each), each))
