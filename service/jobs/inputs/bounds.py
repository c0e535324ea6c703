"""Bound on the images that no job keeps yet, of each owner and of all together."""

import threading
from collections import Counter
from typing import Final, Self

from service.config.table import Config
from service.errors import TooManyUploads, UploadsFull

RETRY_SECONDS: Final = 5.0
"""About as long as a large image takes to arrive."""

MIB: Final = 2**20


class UploadBounds:
    """Counts bytes by owner: ``most`` in all, ``each`` of one owner; from any thread."""

    def __init__(self, most: int, each: int = 0) -> None:
        self.most, self._each = most, each or most
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the bounds that the settings ask for."""
        most = config.uploads_max_bytes
        return cls(most, config.uploads_max_bytes_per_key or most // 2)

    @property
    def held(self) -> int:
        """Bytes of all owners."""
        with self._lock:
            return self._held.total()

    def take(self, owner: str, size: int) -> None:
        """Count ``size`` bytes more of an owner; with 0, ask whether there is room for any.

        Raises:
            TooManyUploads: the owner has too many.
            UploadsFull: all owners together have.

        """
        with self._lock:
            wanted = max(size, 1)
            if self._held[owner] + wanted > self._each:
                raise TooManyUploads(
                    f"Images of your key that are on their way in may take {self._each / MIB:.0f}"
                    " MiB; send fewer or smaller images at a time.",
                    retry_after=RETRY_SECONDS,
                )
            if self._held.total() + wanted > self.most:
                raise UploadsFull(
                    f"Images that are on their way in may take {self.most / MIB:.0f} MiB; send"
                    " the request again.",
                    retry_after=RETRY_SECONDS,
                )
            self._held[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        """Count ``size`` bytes less of an owner."""
        with self._lock:
            self._held[owner] -= size
            if not self._held[owner]:
                del self._held[owner]
