"""The API keys in force, and the file that they are read from again when it changes."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from service.config.credentials import ApiKey, Keys
from service.errors import ConfigError
from service.system import regular_file

log = structlog.get_logger(__name__)

LARGEST_FILE: Final = 1_000_000
"""Bytes; a hundred names need a hundredth of it."""

Version = tuple[int, int, int]


class Keyring:
    """Finds out who asks. Wired in ``create_app``; ``changed`` is called every few seconds.

    Keys come from API_KEYS, or from API_KEYS_FILE. A file that became unreadable, empty or
    wrong leaves the keys in force as they are: a typing error must neither lock
    anybody out nor let anybody in.
    """

    def __init__(self, keys: Keys, file: str = "") -> None:
        """Read the file, if there is one.

        Raises:
            ConfigError: the file cannot be used.

        """
        self._keys = keys
        self._path = Path(file) if file else None
        self._version: Version | None = None
        if self._path is not None:
            self._version = _version(self._path)
            try:
                self._keys = _read(self._path)
            except (OSError, ValueError) as error:
                raise ConfigError(f"API_KEYS_FILE={file}: {_reason(error)}") from None
        self.weights = self._keys.weights
        """The share of each key in the queue's turns; one mapping, kept up to date."""

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys in force."""
        return self._keys.names

    @property
    def watched(self) -> bool:
        """Whether there is a file that may change."""
        return self._path is not None

    def find(self, secret: str) -> ApiKey | None:
        """Return whose secret this is, or None."""
        return self._keys.find(secret)

    def webhook_keys(self, name: str) -> Sequence[bytes]:
        """Return what the webhooks of a key are signed with; nothing for the common secret."""
        return self._keys.webhook_keys.get(name, ())

    def changed(self, *, again: bool = False) -> Keys | None:
        """Return the keys of the file if it changed, or ``again``, and can be used.

        It asks the disk: call it on a thread.
        """
        if self._path is None:
            return None
        version = _version(self._path)
        if version == self._version and not again:
            return None
        self._version = version  # A file that cannot be used is complained of once.
        try:
            keys = _read(self._path)
        except (OSError, ValueError) as error:
            log.error("keys_not_read", path=str(self._path), reason=_reason(error))  # noqa: TRY400 - a traceback would show the file's text
            return None
        return keys

    def take(self, keys: Keys) -> None:
        """Put other keys in force."""
        added = sorted({*keys.names} - {*self.names})
        revoked = sorted({*self.names} - {*keys.names})
        self._keys = keys
        self.weights |= keys.weights
        log.info("keys_read", names=len(keys.names), added=added, revoked=revoked)


def _version(path: Path) -> Version | None:
    """Return what changes with the file; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> Keys:
    data, found = regular_file.read(path, LARGEST_FILE)
    if found.st_mode & stat.S_IROTH:
        log.warning("keys_readable_by_everybody", path=str(path), cure="chmod o-r")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8") from None
    return Keys.from_lines(text)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
