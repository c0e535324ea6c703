"""What a build may copy: the files that .dockerignore lets through."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pathspec


def let_through(ignore: str, paths: Iterable[str]) -> list[str]:
    """Return the paths that a .dockerignore leaves in the build's context.

    Its patterns start at the root, those of a .gitignore anywhere; else they mean the same.
    """
    lines = []
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        anchored = pattern.removeprefix("!").removeprefix("/")
        lines.append(("!/" if negated else "/") + anchored)
    ignored = pathspec.GitIgnoreSpec.from_lines(lines)
    return sorted(path for path in paths if not ignored.match_file(path))


def copy(root: Path, paths: Iterable[str], target: Path) -> list[str]:
    """Copy what a build gets to see into a folder, and return its paths."""
    kept = let_through((root / ".dockerignore").read_text(encoding="utf-8"), paths)
    for path in kept:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target / path)
    return kept
