"""The settings from the environment and the flags of the command line."""

import argparse
from collections.abc import Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from service.config.access_settings import AccessSettings
from service.config.addresses import Listed
from service.config.profiles import PROFILES
from service.config.setting import (
    AUTO,
    check,
    describe,
    display,
    environment_name,
    flag_name,
    kind_of,
    parse,
    tidy,
)
from service.config.table import Config
from service.errors import ConfigError


def without_secrets(config: Config) -> Config:
    """Return the settings as the engine gets them, which has no use for any secret."""
    none: dict[str, Any] = {
        row.name: row.default for row in fields(Config) if row.metadata["secret"]
    }
    return replace(config, **none)


def of_engines(config: Config) -> dict[str, Any]:
    """Return the settings that an engine may read: all but those of HTTP and keys."""
    others = {row.name for row in fields(AccessSettings)}
    return {row.name: getattr(config, row.name) for row in fields(Config) if row.name not in others}


def texts(config: Config) -> dict[str, str]:
    """Return the settings as environment variables that ``load`` makes them of, without secrets.

    A path that is relative to this process's folder is absolute there.
    """
    return {
        environment_name(row): display(_absolute(getattr(config, row.name), row))
        for row in fields(Config)
        if not row.metadata["secret"]
    }


def _absolute(value: Any, row: Field[Any]) -> Any:
    """Return a path that is read the same in any folder; a name that is no path here stays."""
    if isinstance(value, Listed):
        return (
            ",".join(str(_absolute(part, row)) for part in value) if row.name == "models" else value
        )
    if not value or not (row.metadata["path"] or row.name == "models"):
        return value
    path = Path(value)
    named = isinstance(value, str) and (value == row.default or not path.exists())
    return value if named else path.absolute()


def secret_names() -> tuple[str, ...]:
    """Return the environment variables that hold secrets."""
    return tuple(environment_name(row) for row in fields(Config) if row.metadata["secret"])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` one flag per row that is no secret; absent flags leave no attribute."""
    only = ", ".join(secret_names())
    group = parser.add_argument_group(
        f"settings (each is also an environment variable; {only} are variables only)"
    )
    for row in fields(Config):
        if row.metadata["secret"]:
            continue
        default = f"[{environment_name(row)}, default {display(row.default)}]"
        group.add_argument(
            flag_name(row),
            dest=row.name,
            default=argparse.SUPPRESS,
            metavar=row.name.split("_")[-1].upper(),
            help=f"{row.metadata['help']} {default}".replace("%", "%%"),
        )


def load(environment: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Config:
    """Build the settings: a flag beats the environment, which beats profile and default.

    An empty variable counts as unset, as compose files and unit files write it, but for
    settings where empty has a meaning. Blanks and line ends around a value are no part of it.

    Raises:
        ConfigError: names every setting that cannot be used, and why.

    """
    kinds = get_type_hints(Config)
    chosen: dict[str, Any] = {}
    problems = []
    for row in fields(Config):
        kind = kind_of(kinds[row.name])
        text = (flags or {}).get(row.name, environment.get(environment_name(row)))
        if text is None:
            continue
        try:
            text = tidy(row, str(text), kind)
            if text == "" and row.name not in (flags or {}) and not row.metadata["empty"]:
                continue
            left_open = row.default is None and text.lower() == AUTO
            value = None if left_open else parse(text, kind, row.metadata["choices"])
        except ValueError as error:
            problems.append(f"{describe(row, text)}: {error}")
        else:
            problems += check(row, value)
            chosen[row.name] = value
    if problems:
        raise ConfigError("; ".join(problems))
    return Config(**{**PROFILES[chosen.get("profile", "none")], **chosen})
