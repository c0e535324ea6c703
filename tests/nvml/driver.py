"""A driver for a GPU that is not there: the real pynvml takes its figures from a text file.

``nvml.c`` lists the figures. For a child process::

    card = Driver(tmp_path)
    subprocess.Popen(..., env={**os.environ, **card.environment})
    card.set(temperature=97, throttle="0x40")
    card.report_fault(79)
    card.set(lost=1)
    card.set(lost=None)
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("nvml.c")
LIBRARY: Final = "libnvidia-ml.so.1"
COMPILERS: Final = ("gcc", "cc")


class NoCompilerError(Exception):
    """There is no C compiler to build the stand-in with."""


def build(folder: Path) -> Path:
    """Compile the library into the folder; return its path.

    Raises:
        NoCompilerError: there is none.

    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NoCompilerError("There is no gcc to build the stand-in for the GPU driver.")
    library = folder / LIBRARY
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", library, SOURCE], check=True)
    return library


class Driver:
    """The library in a folder, and the file that it reads its figures from."""

    def __init__(self, folder: Path, library: Path | None = None, **figures: object) -> None:
        self.library = library or build(folder)
        self.file = folder / "nvml.txt"
        self._figures: dict[str, object] = {}
        self.set(**figures)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to take this library for the driver's."""
        others = os.environ.get("LD_LIBRARY_PATH")
        folders = [str(self.library.parent), *([others] if others else [])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders), "FAKE_NVML": str(self.file)}

    def set(self, **figures: object) -> None:
        """Change some figures at once; None gives a figure its usual value again."""
        self._figures |= figures
        lines = (f"{key}={value}\n" for key, value in self._figures.items() if value is not None)
        # A reader finds the old file or the new one, never half of it.
        new = self.file.with_suffix(".new")
        new.write_text("".join(lines))
        new.replace(self.file)

    def reset(self) -> None:
        """Give every figure its usual value again; faults stay reported."""
        self.set(**{key: None for key in self._figures if not key.endswith("xids")})

    def report_fault(self, xid: int, key: str = "xids") -> None:
        """Have the driver report a fault to whoever listens; ``1.xids`` is of the second GPU."""
        reported = self._figures.get(key)
        self.set(**{key: xid if reported is None else f"{reported},{xid}"})
