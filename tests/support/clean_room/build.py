"""The stages of a Dockerfile carried out over a Debian of their own."""

import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.clean_room import context, dockerfile
from tests.support.clean_room.dockerfile import Stage
from tests.support.clean_room.layers import Layer, StepFailed, copied, run

DEBIAN: Final = re.compile(r"debian:([a-z]+)-slim")
SLIM: Final = tuple(f"usr/share/{name}" for name in ("doc", "info", "locale", "man"))
"""What a slim image leaves out."""

CLEAN: Final = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
"""As in Debian's images: apt keeps neither packages nor its index of them."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What a build ends in."""

    stage: Stage
    layers: tuple[Layer, ...]
    context: tuple[str, ...]
    """The files that the build got to see."""

    @property
    def folders(self) -> list[Path]:
        """The layers' folders, the lowest first."""
        return [layer.folder for layer in self.layers]


def build(
    root: Path, paths: Iterable[str], arguments: Mapping[str, str], room: Path, lent: Path
) -> Image:
    """Carry out the Dockerfile of ``root`` in ``room`` and return its last stage.

    ``paths`` are the files of the project; .dockerignore chooses among them.

    Raises:
        StepFailed: with the step and what it said.

    """
    seen = room / "context"
    seen.mkdir(parents=True)
    kept = context.copy(root, paths, seen)
    done: dict[str, list[Layer]] = {}
    last: Stage | None = None
    for stage in dockerfile.read(root / "Dockerfile", arguments):
        below = done.get(stage.base) or [debian(stage.base, room)]
        done[stage.name] = list(below)
        for step in stage.steps:
            upper = room / f"layer-{sum(len(each) for each in done.values())}-{stage.name}"
            upper.mkdir()
            folders = [layer.folder for layer in done[stage.name]]
            begun = time.monotonic()
            match step.kind:
                case "RUN":
                    run(step, folders, upper, lent)
                case "COPY":
                    source = [each.folder for each in done.get(step.flag.get("from", ""), [])]
                    copied(step, upper, context=seen, stage=source)
                case _:
                    (upper / step.text.lstrip("/")).mkdir(parents=True)
            layer = Layer(step=str(step), folder=upper, seconds=time.monotonic() - begun)
            done[stage.name].append(layer)
            print(f"  {stage.name:>8}  {layer.seconds:5.1f} s  {layer.step[:90]}", flush=True)
        last = stage
    if last is None:
        raise StepFailed("the Dockerfile has no stage")
    return Image(stage=last, layers=tuple(done[last.name]), context=tuple(kept))


def debian(name: str, room: Path) -> Layer:
    """Return a minimal Debian, made by debootstrap from the machine's own mirror.

    It is what the image of that name begins as, before documentation is taken out of it.
    """
    if not (found := DEBIAN.fullmatch(name)):
        raise ValueError(f"FROM {name}: only debian:RELEASE-slim is understood here")
    folder = room / "debian"
    begun = time.monotonic()
    command = ["debootstrap", "--variant=minbase", found[1], str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(f"FROM {name}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for waste in ("var/cache/apt", "var/lib/apt/lists", *SLIM):
        shutil.rmtree(folder / waste, ignore_errors=True)
    (folder / "var/cache/apt/archives/partial").mkdir(parents=True)
    (folder / "etc/apt/apt.conf.d/docker-clean").write_text(CLEAN, encoding="utf-8")
    return Layer(step=f"FROM {name}", folder=folder, seconds=time.monotonic() - begun)


def lend(room: Path, torch: str) -> Path:
    """Return a folder of what steps may use of this machine: its certificates, its torch.

    A build of torch that pip has on this machine is laid out as an index of its own. Where
    there is none, the index of the Dockerfile is asked.
    """
    lent = room / "lent"
    wheels = lent / "index" / "cpu" / "torch"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if authorities := os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile:
        shutil.copy(authorities, lent / "ca.crt")
    command = [*pip, "download", "--quiet", "--no-deps", "--dest", str(wheels)]
    subprocess.run([*command, f"torch=={torch}+cpu"], capture_output=True, check=False)
    names = [path.name for path in wheels.iterdir()]
    if not names:
        shutil.rmtree(lent / "index")
        return lent
    links = "".join(f'<a href="{each.replace("+", "%2B")}">{each}</a>' for each in names)
    (wheels / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return lent
