"""Whether the service can join its Ray cluster, as far as that is known without Ray."""

import stat
from importlib import util
from pathlib import Path
from typing import Final

from service.config.table import Config
from service.errors import ConfigError, NotInstalled
from service.system import installation, regular_file

MOST_BYTES: Final = 4096
LEAST_CHARACTERS: Final = 16
OTHERS: Final = stat.S_IWGRP | stat.S_IRWXO
"""A group may read it, as where Kubernetes mounts a secret for the group of a pod."""


def check(config: Config) -> None:
    """Look for Ray and for the token, which is as good as the right to run programs on every node.

    Raises:
        NotInstalled: Ray is missing, with the line that installs it.
        ConfigError: the token cannot be read, or others can read it.

    """
    if util.find_spec("ray") is None:
        cure = installation.here().extras("ray")
        raise NotInstalled(f"ray cannot be found. Install what ENGINE=ray needs: {cure}")
    demand_token(Path(config.ray_token_file))


def demand_token(path: Path) -> None:
    """Refuse a token file that is not there, has no token, or is open to others.

    Raises:
        ConfigError: with the cure.

    """
    name = f"RAY_TOKEN_FILE={path}"
    make = f"make one for all nodes: (umask 077; openssl rand -hex 32 > {path})"
    try:
        data, found = regular_file.read(path, MOST_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{name}: is not there; {make}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{name}: cannot be read ({reason}); {make}") from error
    if found.st_mode & OTHERS:
        raise ConfigError(
            f"{name}: others can read or change it, and who has the token can run any program on "
            f"every node; chmod 600 {path}"
        )
    if len(data.strip()) < LEAST_CHARACTERS:
        raise ConfigError(f"{name}: has less than {LEAST_CHARACTERS} characters; {make}")
