"""Where a model comes from."""

from dataclasses import dataclass
from pathlib import Path


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
