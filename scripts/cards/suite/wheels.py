"""Packages that a machine lacks, brought along as wheels in a folder that git ignores.

A wheel of pure Python works as soon as it is unzipped: no pip and no network is needed. Only the
standard library is imported here, since everything else may be missing.
"""

import importlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / ".whl"
CONSTRAINTS: Final = ROOT / "constraints.txt"

BROUGHT: Final = {
    "diffusers": "diffusers",
    "importlib_metadata": "importlib_metadata",
    "lazy_importer": "lazy-importer",
    "aiohttp_apispec": "aiohttp-apispec",
    "apispec": "apispec",
    "marshmallow": "marshmallow",
    "structlog": "structlog",
    "webargs": "webargs",
}
"""By module, the packages that few machines with a GPU have. All of them are pure Python."""

THERE: Final = (
    *("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "numpy"),
    *("aiohttp", "yarl", "prometheus_client", "pynvml", "PIL", "tqdm", "packaging"),
    *("msgspec", "psutil"),
)
"""Modules that the machine itself must have."""

PURE: Final = "-none-any.whl"
FETCH: Final = "python3 scripts/benchmark_card.py --fetch-wheels"


def missing(modules: Sequence[str] = (*BROUGHT, *THERE)) -> list[str]:
    """Return the modules that Python cannot find."""
    return [name for name in modules if util.find_spec(name) is None]


@contextmanager
def unpacked(folder: Path = FOLDER) -> Iterator[list[str]]:
    """Put the wheels on the path of this process and its children; yield what is still missing.

    Where nothing is missing the wheels stay as they are: an environment's own packages win.
    """
    if not missing():
        yield []
        return
    path, before = list(sys.path), os.environ.get("PYTHONPATH")
    with TemporaryDirectory(prefix="card-wheels-") as site:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)
        sys.path.insert(1, site)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, before]))
        importlib.invalidate_caches()
        try:
            yield missing()
        finally:
            sys.path[:] = path
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def lack(names: Sequence[str], folder: Path = FOLDER) -> str:
    """Say in one line what is missing, and how it comes here."""
    said = f"{', '.join(names)} cannot be found here or in {folder.name}/."
    foreign = [name for name in names if name not in BROUGHT]
    if foreign:
        return (
            f"{said} Install {', '.join(foreign)} here, or run this with an environment's Python."
        )
    return f"{said} Where there is a network, run '{FETCH}', and bring {folder.name}/ along."


def fetch(folder: Path = FOLDER) -> int:
    """Fetch the wheels by pip, in the versions of constraints.txt if it is there; print the size.

    Returns the exit code.
    """
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    pins = ["--constraint", str(CONSTRAINTS)] if CONSTRAINTS.exists() else []
    command = [*(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"), *pins]
    command += ["--wheel-dir", str(folder), *BROUGHT.values()]
    done = subprocess.run(command, check=False)  # noqa: S603 - pip with names of our own
    if done.returncode:
        print("benchmark_card: pip fetched no wheels; see its own words above.", file=sys.stderr)
        return 1
    wheels = sorted(folder.glob("*.whl"))
    if bound := [wheel.name for wheel in wheels if not wheel.name.endswith(PURE)]:
        print(
            f"benchmark_card: {', '.join(bound)} must be pure Python to run elsewhere: "
            "fetch a wheel of that machine's Python and platform with pip download.",
            file=sys.stderr,
        )
        return 1
    for wheel in wheels:
        print(f"{wheel.stat().st_size:>10,}  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in wheels):>10,}  bytes in {folder.name}/")
    return 0
