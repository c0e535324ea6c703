"""What an operator asks of the running service: to remove all jobs of an API key."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.config.table import Config

WISHES: Final = "purge"
"""Folder of DATA_DIR with a file for each key whose jobs are to be removed."""

LONGEST_NAME: Final = 1024


def wish(config: Config, owner: str) -> Path:
    """Ask the running service to remove all jobs of a key; the file is gone when it has done so.

    It belongs to whom DATA_DIR belongs to, so that root may ask a service of another user.
    """
    data = Path(config.data_dir)
    folder = data / WISHES
    folder.mkdir(mode=0o700, exist_ok=True)
    half = folder / f"{secrets.token_hex(16)}.part"
    half.write_text(owner, encoding="utf-8")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found = data.stat()
        for path in (folder, half):
            os.chown(path, found.st_uid, found.st_gid)
    return half.rename(half.with_suffix(".key"))


def wishes(folder: Path) -> Iterator[tuple[Path, str]]:
    """Return the files of wishes in DATA_DIR, and the names of their keys."""
    for path in sorted((folder / WISHES).glob("*.key")):
        with path.open(encoding="utf-8", errors="replace") as file:
            yield path, file.read(LONGEST_NAME)
