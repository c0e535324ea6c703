"""Input images in memory, for a service that keeps nothing on the disk."""

import hashlib
import threading
from collections.abc import Collection, Mapping

from service.core.outcome import UploadOutcome
from service.errors import ServiceError
from service.jobs.inputs.base import NAMES, InputStore, Receiver, Upload
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.counted import Count, nothing
from service.jobs.inputs.files import lost
from service.jobs.results.base import demand_id


class MemoryInputs(InputStore):
    """Images in a dictionary; those of jobs count in the bounds, too, until their job is over."""

    def __init__(self, bounds: UploadBounds, *, count: Count = nothing) -> None:
        self.bounds, self.count = bounds, count
        self._kept: dict[str, dict[str, _MemoryUpload]] = {}

    async def open(self) -> None:
        return

    def receive(self, owner: str) -> Receiver:
        return _MemoryReceiver(self, owner)

    async def keep(
        self, job_id: str, uploads: Mapping[str, Upload], *, durable: bool = True
    ) -> None:
        del durable  # Nothing here is.
        demand_id(job_id)
        kept = {}
        for name, upload in uploads.items():
            if not isinstance(upload, _MemoryUpload) or name not in NAMES:
                raise TypeError("it is an upload of another store")
            kept[name] = upload
        for upload in kept.values():
            upload.claim()
            self.count(UploadOutcome.KEPT)
        self._kept[job_id] = kept

    def read(self, job_id: str, name: str) -> bytes:
        demand_id(job_id)
        upload = self._kept.get(job_id, {}).get(name)
        if upload is None:
            raise lost(name)
        return upload.read()

    async def delete(self, job_id: str) -> bool:
        demand_id(job_id)
        kept = self._kept.pop(job_id, {})
        for upload in kept.values():
            upload.release()
            upload.discard()
        return bool(kept)

    async def clean(self, known: Collection[str]) -> list[str]:
        return [job_id for job_id in {*self._kept} - {*known} if await self.delete(job_id)]

    async def sizes(self) -> Mapping[str, int]:
        return {
            job_id: sum(upload.size for upload in kept.values())
            for job_id, kept in self._kept.items()
        }

    @property
    def receiving_bytes(self) -> int:
        return self.bounds.held


class _MemoryReceiver(Receiver):
    """An image on its way in."""

    def __init__(self, store: MemoryInputs, owner: str) -> None:
        try:
            store.bounds.take(owner, 0)
        except ServiceError:
            store.count(UploadOutcome.REFUSED)
            raise
        self._store, self._owner = store, owner
        self._parts: list[bytes] | None = []
        self._size = 0
        self._outcome = UploadOutcome.BROKEN
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._parts is None:
                raise RuntimeError("the upload is over")
            try:
                self._store.bounds.take(self._owner, len(data))
            except ServiceError:
                self._outcome = UploadOutcome.REFUSED
                raise
            self._size += len(data)
            self._parts.append(bytes(data))

    def done(self) -> Upload:
        parts = self._closed()
        if parts is None:
            raise RuntimeError("the upload is over")
        self._store.count(UploadOutcome.RECEIVED)
        return _MemoryUpload(self._store, self._owner, b"".join(parts))

    def discard(self) -> None:
        if self._closed() is not None:
            self._store.count(self._outcome)
            self._store.bounds.give_back(self._owner, self._size)

    def _closed(self) -> list[bytes] | None:
        with self._lock:
            parts, self._parts = self._parts, None
            return parts


class _MemoryUpload(Upload):
    """An image in memory; the job that keeps it claims it."""

    def __init__(self, store: MemoryInputs, owner: str, data: bytes) -> None:
        super().__init__(hashlib.sha256(data).hexdigest(), len(data))
        self._store, self._owner, self._data = store, owner, data

    def read(self) -> bytes:
        return self._data

    def _remove(self) -> None:
        self._data = b""
        self._store.bounds.give_back(self._owner, self.size)
