"""The image that the Dockerfile makes on this machine, and what is found out about it."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.support.clean_room import trial
from tests.support.clean_room.build import Image, build, lend
from tests.support.clean_room.layers import Layer, devices, overlay

ROOT: Final = Path(__file__).parents[3]
LARGEST: Final = 8
NEEDED: Final = ("debootstrap", "unshare", "chroot", "mount")


def missing() -> str:
    """Return what keeps this machine from it; empty when nothing does."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "needs root, to mount layers and change the root folder"
    with tempfile.TemporaryDirectory(prefix="clean-room-") as folder:
        layers = [Path(folder) / name for name in ("one", "two", "both")]
        for layer in layers:
            layer.mkdir()
        inside = overlay(layers[:2], layers[2])
        command = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-euc", inside]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"needs namespaces and layers: {done.stderr.strip()}" if done.returncode else ""


def tracked() -> list[str]:
    """Return the project's files: those git knows, and new ones that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def carried_out(room: Path) -> tuple[Image, dict[str, Any]]:
    """Build the CPU image in ``room`` and try it."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lent = lend(room, re.findall(r"^torch==(.+)$", constraints, re.MULTILINE)[0])
    arguments = {"TORCH": "cpu"}
    if (lent / "index").exists():
        arguments["TORCH_INDEX"] = "file:///run/machine/index"
    image = build(ROOT, tracked(), arguments, room, lent)
    tree = room / "tree"
    tree.mkdir()
    mounts = "\n".join([overlay(image.folders, tree), devices(tree)])
    words = {name: value for name, value in vars(image.stage).items() if name != "steps"}
    return image, trial.begin(mounts, str(tree), words)


def packages(image: Image) -> dict[str, float]:
    """Return what lies in the folders of packages, by name, in units of 10^6 bytes."""
    found: dict[str, float] = {}
    for layer in image.layers:
        for folder in layer.folder.glob("opt/venv/lib/*/site-packages/*"):
            found[folder.name] = Layer(step="", folder=folder, seconds=0).megabytes
    return found


def report(image: Image, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured and found, without the image."""
    layers = [
        {"step": layer.step, "megabytes": round(layer.megabytes, 1)} for layer in image.layers
    ]
    sizes = sorted(packages(image).items(), key=lambda item: -item[1])
    shown = {**found, "image": {**found["image"], "png": "..."}}
    return {
        "megabytes": round(sum(layer.megabytes for layer in image.layers), 1),
        "layers": layers,
        "largest_packages": {name: round(size, 1) for name, size in sizes[:LARGEST]},
        "files_seen_by_the_build": len(image.context),
        **shown,
    }
