"""Writes the dashboards' JSON files, or checks that they are as they would be written.

``python -m dashboards.generate [--check]``
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dashboards.pages import generation, gpu, service

FOLDER: Final = Path(__file__).parent


def files() -> dict[str, str]:
    """Return what each file should hold; the same on every run and machine."""
    made = {"service": service, "gpu": gpu, "generation": generation}
    return {
        f"{name}.json": json.dumps(
            module.dashboard().json(), ensure_ascii=False, indent=2, sort_keys=True
        )
        + "\n"
        for name, module in made.items()
    }


def problems(folder: Path) -> list[str]:
    """Say what in ``folder`` differs from what would be written there."""
    wanted = files()
    found = {path.name for path in folder.glob("*.json")}
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found)),
        *(f"{name} is not one of ours" for name in sorted(found - wanted.keys())),
        *(
            f"{name} differs from the generator"
            for name in sorted(found & wanted.keys())
            if (folder / name).read_bytes() != wanted[name].encode()
        ),
    ]


def main(arguments: Sequence[str] | None = None, *, folder: Path = FOLDER) -> int:
    """Write the files, or with ``--check`` return 1 when one is not as it should be."""
    parser = argparse.ArgumentParser(prog="dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if files differ")
    if parser.parse_args(arguments).check:
        found = problems(folder)
        for problem in found:
            print(f"dashboards: {problem}; run: python -m dashboards.generate")
        return 1 if found else 0
    for name, content in files().items():
        (folder / name).write_bytes(content.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
