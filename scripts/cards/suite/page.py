"""The page that keeps what was measured: docs/card.json holds it, docs/card.md shows it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.cards.suite.parts import replaced
from service.errors import ConfigError

PAGE: Final = """\
# Benchmark of one GPU

`scripts/benchmark_card.py` answers in one command, within nine minutes and without a network, how
the engine does on a card. It wrote this page. The parts run in this order, each in a process of its
own: one that fails or takes too long does not stop the others, and its line says why.

- `machine`: the card and the versions, and which packages are older than the project asks for.
- `rows`: Stable Diffusion 1.5's true shape with random weights (`scripts/random_model.py`), drawn
  by the engine and by the plain diffusers pipeline under `VRAM_LIMIT_GB=6`: the same images with
  the same sampler, guidance and PNG encoder, in turns, each turn in a process of its own.
- `shortage`: real out-of-memory. A tensor fills the card but for a rest, or torch may take less
  than the model needs. The table names the rungs that the engine climbs, and says whether the
  normal request afterwards gives the image that it gave before.
- `batches`: 1 to 16 images of 512x512 at a time, and whether an image is the same in company.
- `service`: the real service. `/health` and the `sd_gpu_*` metrics before, while and after it
  draws, and its end by SIGTERM.
- `parity`: the demo model on the GPU in float32 and float16, compared with the CPU and with the
  plain pipeline on the same GPU.

The plain pipeline is built by diffusers and torch alone. In `rows` the engine has `PROFILE=6gb`,
which decodes images above 512 in tiles; the pipeline has what diffusers does by itself. Seconds are
medians from order to PNG; the first image of each process is not counted. A larger card under the
limit shows that the memory suffices, not how fast a small one is: of the two columns of seconds
only the ratio tells something about it.

## The command

The machine needs Python 3.11 or newer with torch, transformers, accelerate, safetensors, numpy,
aiohttp, Pillow, prometheus-client and nvidia-ml-py. Bring the repository, and what else the machine
lacks as wheels; they are pure Python, and the command unpacks them for itself:

```sh
# Needs a network.
.venv/bin/python scripts/benchmark_card.py --fetch-wheels
```

Then, on the machine, from the repository's root:

```sh
# Needs a GPU.
python3 scripts/benchmark_card.py
```

Results go to the folder that the variable `$OUT` names, else to `--out FOLDER`, else to out/:
card.md, card.json, card.log and images.png. They are written after every step, so that a run that
is ended early leaves what it has. `--write` writes this page, too. `--vram 6` is the limit of the
first table, `--parts rows,parity` runs some parts only, and `--minutes 60` gives a slow card the
time that it needs. The random model (2.1 GB) is built first if it is missing.

Exit code 0: every part ran. 1: a part failed or was cut off. 69: packages are missing.
71: there is no GPU, and `--on-cpu` was not given.

## On a GPU

{gpu}

## On a CPU

The same parts, small, with the demo model and in float32: this proves the command and no more.

```sh
# Needs 2 GB of memory and some minutes.
.venv/bin/python scripts/benchmark_card.py --on-cpu --write
```

{cpu}
"""
NOT_YET: Final = {"gpu": "Not measured yet: no GPU was at hand.", "cpu": "Not measured yet."}


def write(folder: Path, kind: str, result: Mapping[str, Any]) -> None:
    """Keep a result of the kind ``gpu`` or ``cpu`` next to that of the other kind."""
    results, shown = files(folder)
    found = {**kept(folder), kind: dict(result)}
    replaced(results, json.dumps(found, indent=1) + "\n")
    replaced(shown, page(found))


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
    shown = {kind: NOT_YET[kind] for kind in NOT_YET}
    shown |= {kind: section(results[kind]) for kind in NOT_YET if results.get(kind) is not None}
    return PAGE.format(**shown)


def section(result: Mapping[str, Any]) -> str:
    """Return one run: where it was, and each part with its table and its notes."""
    return "\n\n".join([result["measured"], *map(_part, result["parts"].values())])


def _part(found: Mapping[str, Any]) -> str:
    ended = f"**Failed:** {found['failure']}. " if found["failure"] else ""
    lines = [f"### {found['title']}"]
    lines += [table(found["table"])] if found["table"] else []
    lines += ["\n".join(f"- {note}" for note in found["notes"])] if found["notes"] else []
    return "\n\n".join([*lines, f"{ended}{found['seconds']:.0f} s."])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their head as Markdown."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
