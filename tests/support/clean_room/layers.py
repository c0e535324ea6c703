"""Layers as an image has them: each step writes into a folder over those before it.

Everything runs in a mount namespace of its own, which takes its mounts with it when it ends.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.clean_room.dockerfile import Step

MACHINE: Final = "/run/machine"
"""Where a step finds what the machine lends it: certificates and a torch."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one step left."""

    step: str
    folder: Path
    seconds: float

    @property
    def megabytes(self) -> float:
        """Sum of its files' sizes in units of 10^6 bytes, as an engine counts them."""
        size = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                size += os.lstat(Path(folder) / name).st_size
        return size / 1e6


class StepFailed(Exception):
    """A step ended with an error."""


def overlay(layers: Sequence[Path], root: Path, upper: Path | None = None) -> str:
    """Return the command that shows layers, the lowest first, as one tree at ``root``."""
    options = "lowerdir=" + ":".join(str(each) for each in reversed(layers))
    if upper is None:
        # One layer alone is no overlay: an empty one beneath makes it one.
        empty = root.parent / "empty"
        empty.mkdir(exist_ok=True)
        return f"mount -t overlay overlay -o {options}:{empty} {root}"
    work = upper.with_name(upper.name + ".work")
    work.mkdir()
    return f"mount -t overlay overlay -o {options},upperdir={upper},workdir={work} {root}"


def devices(root: Path) -> str:
    """Return the commands that give a tree its /proc and /dev."""
    return f"mount -t proc proc {root}/proc; mount --rbind /dev {root}/dev"


def carry_out(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in namespaces of its own and return how it ended."""
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-euc", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def run(step: Step, layers: Sequence[Path], upper: Path, lent: Path) -> None:
    """Carry out a RUN step over these layers; what it changes goes into ``upper``."""
    root = upper.parent / "root"
    root.mkdir(exist_ok=True)
    commands = [overlay(layers, root, upper), devices(root)]
    # The machine's answers to names, and what it lends, are no part of the layer.
    commands += [
        f"mount -t tmpfs tmpfs {root}/run",
        f"mkdir -p {root}{MACHINE}",
        f"mount --bind {lent} {root}{MACHINE}",
        f"mount --bind /etc/resolv.conf {root}/etc/resolv.conf",
    ]
    for name, value in step.flags:
        options = dict(part.split("=", 1) for part in value.split(","))
        if name != "mount" or options.pop("type") != "cache" or options.keys() != {"target"}:
            raise ValueError(f"--{name}={value}: this flag is not understood here")
        kept = lent / "cache"
        kept.mkdir(exist_ok=True)
        commands += [
            f"mkdir -p {root}{options['target']}",
            f"mount --bind {kept} {root}{options['target']}",
        ]
    variables = {"HOME": "/root", **step.environment, **borrowed(lent)}
    told = [f"{name}={value}" for name, value in variables.items()]
    inside = f"cd {step.folder}; {step.text}"
    commands.append(
        shlex.join(["exec", "chroot", str(root), "env", "-i", *told, "/bin/sh", "-c", inside])
    )
    done = carry_out("\n".join(commands))
    shutil.rmtree(upper.with_name(upper.name + ".work"))
    if done.returncode:
        raise StepFailed(f"{step}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def borrowed(lent: Path) -> dict[str, str]:
    """Return the variables by which a step's pip reaches the machine's package index."""
    names = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")
    found = {name: os.environ[name] for name in names if name in os.environ}
    if (lent / "ca.crt").exists():
        found["PIP_CERT"] = f"{MACHINE}/ca.crt"
    return found | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "DEBIAN_FRONTEND": "noninteractive"}


def copied(step: Step, upper: Path, *, context: Path, stage: Sequence[Path]) -> None:
    """Carry out a COPY step from the context or, with --from, from the layers of a stage."""
    if step.flag.keys() - {"from"}:
        raise ValueError(f"{step}: a flag that is not understood here")
    root = upper.parent / "root"
    root.mkdir(exist_ok=True)
    source = root if step.flag else context
    *names, target = step.text.split()
    into = upper / os.path.normpath(str(Path(step.folder) / target)).lstrip("/")
    commands = [overlay(stage, root)] if step.flag else []
    for name in names:
        found = shlex.quote(str(source / name.lstrip("/")))
        place = shlex.quote(str(into))
        # A folder's contents go into the target; a file goes into it where it ends in a slash.
        last = place if target.endswith("/") else shlex.quote(str(into.parent))
        commands.append(
            f"if [ -d {found} ]; then mkdir -p {place}; cp -a {found}/. {place}/; "
            f"else mkdir -p {last}; cp -a {found} {place}; fi"
        )
    commands.append(f"chown -R 0:0 {shlex.quote(str(upper))}")
    done = carry_out("\n".join(commands))
    if done.returncode:
        raise StepFailed(f"{step}\n{done.stderr}")
