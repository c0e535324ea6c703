"""docs/performance.md and the table of the README, as the benchmark writes them."""

import re
from pathlib import Path
from typing import Final

from scripts.benchmark import report
from scripts.benchmark.course import Outcome
from scripts.benchmark.machine import Machine

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "performance.md"
PLOT: Final = DOCUMENT.with_suffix(".png")
README: Final = ROOT / "README.md"
BLOCK: Final = re.compile(r"(<!-- performance: .*? -->\n).*?(<!-- /performance -->)", re.DOTALL)

BESIDE: Final = """
## What it is compared with

All servers run on this machine, in one run, and take turns: in each round each of them gets the
same requests at the same load, another one first each time ({rounds} rounds; with one client, a
round is one picture of each), while the processes of the others stand still (but the service's
own, which do nothing when they have nothing to do). So a noisy machine is noisy for all. A ratio is
the median over the rounds of the service's figure divided by the other's in the same round: for
seconds, less than 1 means that the service is faster; for pictures a second, more than 1.

| Server | What it is |
|---|---|
| service | `sd-api serve` with its defaults; `MAX_CONCURRENT_REQUESTS` is {batch} |
| plain diffusers | [an aiohttp server](../scripts/benchmark/plain_server.py) around the diffusers \
pipeline: a lock, one picture at a time, in a thread; the file is packed while the next is made |
| LitServe | [LitServe](../scripts/benchmark/litserve_server.py) with `max_batch_size={batch}`, a \
batch is collected for 10 ms, `fast_queue=True`; requests of one size, steps and guidance are one \
call of the pipeline, each with its own seed |

All have the same model, loaded by the same code (number format, attention and memory layout are
the same), the same sampler, steps, guidance scale, seeds, number of torch threads, PNG
compression and warm-up. That they do the same work is checked in each run: before anything is
timed, all make the same pictures{same}.
"""


def document(command: str, outcome: Outcome, machine: Machine) -> str:
    """Return docs/performance.md."""
    beside = ""
    if len(outcome.servers) > 1:
        apart = max(outcome.differences.values(), default=0.0)
        same = f" (the largest mean difference was {apart:.3f} levels of 255)"
        beside = BESIDE.format(batch=machine.batch, rounds=outcome.rounds, same=same)
    return f"""# Performance

`{command}`, written by the command itself.
{machine}.

![Throughput and latency by clients, and a mixed load](performance.png)

{report.tables(outcome)}

- Each client asks for the next picture when it has the one before; seconds are from the request to
  the last byte of the PNG, as the client sees them. Every picture is looked at.
- "steps/s" are denoising steps of single pictures.
- In the mixed load, the pauses before short requests are the same for every server.
{beside}
## What to expect

- One client: the service costs about what the pipeline costs. It adds a process of its own for the
  model, a queue and a store, and gains nothing by steps when there is nobody to join.
- Many clients, same requests: a batch uses the processor better than single pictures, most for
  small ones. LitServe batches as well: where all requests are alike, steps have no
  advantage over batches of whole requests. In the figures above they cost up to an eighth of the
  pictures a second beside LitServe, and up to a fifth more seconds at the median.
- A short request beside long ones is what steps are for: it joins at the next step, where a plain
  server lets it wait for whole pictures, and a batching server for whole batches.
- What is not in these figures: a client that hangs up frees the service within one step (see
  [cancellation](cancellation.md)); the others finish the picture for nobody.
"""


def write(command: str, outcome: Outcome, machine: Machine) -> None:
    """Write docs/performance.md and the README's table; the plot is drawn apart."""
    DOCUMENT.write_text(document(command, outcome, machine), encoding="utf-8")
    old = README.read_text(encoding="utf-8")
    new = f"{report.short(outcome)}\n\n{machine}.\n"
    README.write_text(BLOCK.sub(lambda m: f"{m[1]}{new}{m[2]}", old), encoding="utf-8")
