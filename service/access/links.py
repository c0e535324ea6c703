"""Links that open one thing until a time, for whoever has them."""

import hashlib
import hmac
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.system import regular_file

KEY_BYTES: Final = 32
FILE: Final = "links.key"


class LinkSigner:
    """Signs names with a key of its own, which outlives the process where it has a folder."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(KEY_BYTES)

    def load(self, folder: Path) -> None:
        """Take the key in a folder, or keep this one there; it reads and writes files.

        What is no key there is replaced: links of earlier processes are refused then.
        """
        path = folder / FILE
        with suppress(OSError, ValueError):
            found, _ = regular_file.read(path, KEY_BYTES)
            if len(found) == KEY_BYTES:
                self._key = found
                return
        temporary = path.with_suffix(".part")
        # Without the file, the key lasts as long as the process.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "wb") as opened:
                opened.write(self._key)
            temporary.replace(path)

    def signature(self, name: str, expires: int) -> str:
        """Return what proves that this service let ``name`` be read until a Unix time."""
        return hmac.new(self._key, f"{expires} {name}".encode(), hashlib.sha256).hexdigest()

    def opens(self, name: str, expires: int, signature: str) -> bool:
        """Return whether a signature is right, and the time is not over."""
        right = self.signature(name, expires)
        given = signature.encode("utf-8", "replace")
        return hmac.compare_digest(right.encode(), given) and time.time() < expires
