"""A Dockerfile as stages of steps, and what its image is started with."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

from dockerfile_parse import DockerfileParser

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIELDS: Final = {
    "VOLUME": "volumes",
    "ENTRYPOINT": "entrypoint",
    "CMD": "command",
    "HEALTHCHECK": "health",
}
"""Instructions that are a list of words."""

FLAG: Final = re.compile(r"--([a-z-]+)=(\S+)\s+")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One instruction that makes a layer: RUN, COPY or WORKDIR."""

    kind: str
    text: str
    flags: tuple[tuple[str, str], ...]
    environment: Mapping[str, str]
    folder: str
    """Where it is carried out."""

    @property
    def flag(self) -> Mapping[str, str]:
        """Flags by name."""
        return dict(self.flags)

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.text.split())}"


@dataclass(kw_only=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """ENV: what remains in the image."""
    folder: str = "/"
    user: str = "0:0"
    volumes: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    port: int = 0


def read(path: Path, arguments: Mapping[str, str]) -> list[Stage]:
    """Return the stages of a Dockerfile, built with these arguments.

    Raises:
        ValueError: it has an instruction that is not understood here, or lacks an argument
            that was given.

    """
    stages: list[Stage] = []
    unknown = set(arguments)
    build: dict[str, str] = {}
    for kind, value in _instructions(path):
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            earlier = {stage.name: stage for stage in stages}.get(base)
            stages.append(Stage(name=name or str(len(stages)), base=base))
            if earlier:  # It goes on where that one ended.
                stages[-1].variables.update(earlier.variables)
                stages[-1].folder, stages[-1].user = earlier.folder, earlier.user
            build = {} if earlier is None else dict(build)
        elif kind == "ARG":
            name, _, default = value.partition("=")
            build[name] = arguments.get(name, "".join(shlex.split(default)))
            unknown.discard(name)
        else:
            _apply(stages[-1], kind, value, build)
    if unknown:
        raise ValueError(f"{path.name}: no such build argument: {', '.join(sorted(unknown))}")
    return stages


def _instructions(path: Path) -> Iterator[tuple[str, str]]:
    parser = DockerfileParser(fileobj=BytesIO(path.read_bytes()))
    for item in parser.structure:
        if item["instruction"] != "COMMENT":
            yield item["instruction"], item["value"]


def _apply(stage: Stage, kind: str, value: str, build: Mapping[str, str]) -> None:
    match kind:
        case "RUN" if stage.user != "0:0":
            raise ValueError(f"RUN as {stage.user}: steps of another user are not understood here")
        case "RUN" | "COPY" | "WORKDIR":
            stage.steps.append(_step(stage, kind, value, build))
            if kind == "WORKDIR":
                stage.folder = value
        case "ENV":
            for word in shlex.split(value):
                name, _, text = word.partition("=")
                stage.variables[name] = text
        case "VOLUME" | "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
            setattr(stage, FIELDS[kind], _words(value[value.index("[") :]))
        case "USER":
            stage.user = value
        case "EXPOSE":
            stage.port = int(value)
        case "STOPSIGNAL" if value == "SIGTERM":
            pass
        case _:
            raise ValueError(f"{kind} {value}: this instruction is not understood here")


def _step(stage: Stage, kind: str, value: str, build: Mapping[str, str]) -> Step:
    flags = []
    while found := FLAG.match(value):
        flags.append((found[1], found[2]))
        value = value[found.end() :]
    environment = {"PATH": PATH, **build, **stage.variables}
    return Step(
        kind=kind,
        text=value,
        flags=tuple(flags),
        environment=environment,
        folder=stage.folder,
    )


def _words(value: str) -> tuple[str, ...]:
    return tuple(json.loads(value))
