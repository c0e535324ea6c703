"""Where a model comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATHS: Final = ("/", "~", ".")
"""How a path begins that is no id on the hub, nor a name in the cache."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model comes from."""

    id: str
    """The name it was asked for by, aliases resolved."""
    path: Path | None
    """Folder or file on this machine; None when it has to come from the hub."""
    version: str
    """What answers carry as ``model_version``."""
    single_file: bool = False
    demo: bool = False

    @property
    def name(self) -> str:
        """What clients know it by."""
        return name_of(self.id)


def name_of(model_id: str) -> str:
    """Return what clients know a model by: its id, of a path the last part.

    The folders of this machine are nothing that a client has to know.
    """
    if not model_id.startswith(PATHS):
        return model_id
    return Path(model_id).absolute().name or model_id
