"""Whether a result can be written, found out before the work that it is the result of."""

from pathlib import Path

from service.cli_generate import replacing
from service.errors import ConfigError


def demand_writable(argument: str, file: Path | None) -> None:
    """Insist that a file can be written; None is no file. Nothing is left behind.

    Raises:
        ConfigError: it cannot, with the argument, the cause and the cure.

    """
    if file is None or file.is_char_device() or file.is_fifo():
        return
    if file.is_dir():
        raise ConfigError(f"{argument} {file}: is a folder; name a file in it.")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{argument} {file}: there is no folder {file.parent}; create it.")
    try:
        if file.exists():
            with file.open("ab"):
                pass
        with replacing(file, keep=False):
            pass
    except OSError as error:
        raise ConfigError(f"{argument} {file}: cannot be written ({error.strerror}).") from error
