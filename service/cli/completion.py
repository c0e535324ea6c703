"""The command ``completion``: a script that completes commands and options in a shell."""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final, get_type_hints

from service.cli.terminal import show
from service.config.setting import kind_of
from service.config.table import Config
from service.core.spec import FIELDS

SHELLS: Final = ("bash", "zsh", "tcsh", "fish", "powershell")
KINDS: Final = {name: kind_of(kind) for name, kind in get_type_hints(Config).items()}
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        row.name: ("true", "false") if KINDS[row.name] is bool else row.metadata["choices"]
        for row in fields(Config)
    },
    **{each.name: each.choices for each in FIELDS},
}
PATHS: Final = frozenset(
    row.name for row in fields(Config) if row.metadata["path"] or KINDS[row.name] is Path
)


def add_completion_arguments(
    parser: argparse.ArgumentParser,
    root: argparse.ArgumentParser,
    commands: Mapping[str, argparse.ArgumentParser],
) -> None:
    """Add which shell the script is for; ``root`` is what it completes, with its commands."""
    parser.add_argument("shell", choices=SHELLS, help=f"One of {', '.join(SHELLS)}.")
    parser.set_defaults(root=root, commands=commands)


def completion(_config: Config, arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415 - no other command needs it

    for command in arguments.commands.values():
        for action in command._actions:  # noqa: SLF001 - argparse has no public list of them
            if choices := CHOICES.get(action.dest):
                # Said here and not to argparse, which would refuse other spellings itself.
                action.choices = list(choices)
            elif action.type is Path or action.dest in PATHS:
                action.complete = shtab.FILE
    return show(shtab.complete(arguments.root, shell=str(arguments.shell)))
