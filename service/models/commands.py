"""Shell commands for error texts: printed as they run, from any directory."""

import shlex
import shutil
import sys
from pathlib import Path

from service.system import installation

SCRIPT = "sd-api"


def sd_api(*arguments: str) -> str:
    """Return a command of the service that runs as printed.

    ``sd-api`` alone where the shell finds this installation by that name, else its path; where
    there is no such script, the interpreter that runs now. What made the environment for one
    run (uvx, ``pipx run``) makes it again.
    """
    made_by = installation.here()
    if made_by.kind in installation.ONE_RUN:
        return f"{made_by.engine()} {shlex.join(arguments)}"
    script = Path(sys.executable).with_name(SCRIPT)
    if not script.is_file():
        return shlex.join([sys.executable or "python3", "-m", "service", *arguments])
    found = shutil.which(SCRIPT)
    # pipx and uv put a link into a folder of the PATH.
    first = SCRIPT if found and Path(found).resolve() == script.resolve() else str(script)
    return shlex.join([first, *arguments])


def models(action: str, *words: str, cache_dir: Path) -> str:
    """Return ``models ACTION ...`` for this MODEL_CACHE_DIR.

    The folder is part of the command: a shell may have another setting, and stand elsewhere.
    """
    return sd_api("models", action, *words, "--model-cache-dir", str(cache_dir.absolute()))


def rename(path: Path, name: str) -> str:
    """Return the command that gives a file another name, and replaces no other file."""
    return shlex.join(
        ["mv", "-n", "--", *map(str, (path.absolute(), path.absolute().with_name(name)))]
    )


def git(folder: Path, *arguments: str) -> str:
    """Return a command of Git for the working tree that a folder belongs to."""
    return shlex.join(["git", "-C", str(folder.absolute()), *arguments])
