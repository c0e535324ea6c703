"""The page that keeps what was measured: docs/card.json holds it, docs/card.md shows it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.cli_generate import replacing
from service.errors import ConfigError

PAGE: Final = """\
# The engine on a card of 6 GB

Stable Diffusion 1.5's true shape with random weights (`scripts/random_model.py`), drawn by this
service's engine and by the plain diffusers pipeline: the same pictures with the same sampler,
guidance and PNG encoder, in turns in one run, each turn in a process of its own. The cap
(`VRAM_LIMIT_GB`) binds both through the same lines of code. On a GPU the engine has `PROFILE=6gb`,
which decodes pictures above 512 in tiles; the pipeline has what diffusers does by itself.
*Seconds* are medians from order to PNG; the first picture of each process is not counted.
*Difference* is the mean of the absolute differences between the pictures of both, of 255 grey
levels. `scripts/benchmark_card.py` wrote this page.

A larger card under the cap shows that the memory suffices, not how fast a small one is: of the
two columns of seconds only the ratio tells something about it.

## On a GPU

One command, no network; no turn begins after 8.5 minutes. It builds the model (2.1 GB) if it is
missing, and leaves this page and `docs/card.json`:

```sh
# Needs a GPU.
.venv/bin/python -m scripts.benchmark_card --vram 6 --write
```

A GTX 1060 itself needs longer: `--minutes 60`.

{gpu}

## On a CPU

In float32 and for the seconds only, which proves the path and no more:

```sh
# Needs 6 GB of memory and some minutes.
.venv/bin/python -m scripts.benchmark_card --on-cpu --rows 256x256/2 --rounds 1 --pictures 2 --write
```

{cpu}
"""
NOT_YET: Final = {"gpu": "Not measured yet: no GPU was at hand.", "cpu": "Not measured yet."}


def write(folder: Path, kind: str, result: Mapping[str, Any]) -> None:
    """Keep a result of the kind ``gpu`` or ``cpu`` beside that of the other kind."""
    results, shown = files(folder)
    found = {**kept(folder), kind: dict(result)}
    _replace(results, json.dumps(found, indent=1) + "\n")
    _replace(shown, page(found))


def files(folder: Path) -> tuple[Path, Path]:
    """Return what holds the results, and the page."""
    return folder / "card.json", folder / "card.md"


def kept(folder: Path) -> dict[str, Any]:
    """Return the results so far.

    Raises:
        ConfigError: their file holds something else.

    """
    path, _ = files(folder)
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        page(found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} does not hold results of this benchmark; remove it.") from error
    return found


def page(results: Mapping[str, Any]) -> str:
    """Return the page of what was measured."""
    return PAGE.format(**{kind: _section(results.get(kind)) or NOT_YET[kind] for kind in NOT_YET})


def _section(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return ""
    return "\n\n".join([result["measured"], result["table"], *result["notes"]])


def _replace(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
