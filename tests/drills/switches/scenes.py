"""What clients ask of two models, and the limit that lets one of them be in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.drills.chaos.killer import Blow

DEMO, TINY, FIRST, SECOND = "demo", "tiny-sd15", "first", "second"
"""The bundled model, one with random weights, and two that are large and quick to draw with."""

WIDTH: Final = 768
"""Of the large models' text embeddings."""

RUNTIME: Final = 1.2e9
"""Bytes of address space of an engine with the demo model, before the first image of another."""

SHARE: Final = 0.57
"""Of the rest of the limit that each large model takes: it is read next to its file, and two do not
fit."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Clients that ask for images of two models, of which one is in memory at a time."""

    name: str
    model: Callable[[int, int], str]
    """By the numbers of client and request."""
    default: str = DEMO
    settings: Mapping[str, object]
    limited: bool = False
    """Whether the address space of the service's processes has a limit."""
    blows: tuple[Blow, ...] = ()
    """Each strikes while a model is loaded."""


def alternating(first: str, second: str) -> Callable[[int, int], str]:
    """Let each client ask for one model and the other in turns; half of them begin with each."""
    return lambda client, request: (first, second)[(client + request) % 2]


BUDGET: Final = {"HOST_CACHE_GB": "0.001"}
"""Room for one model: a model alone may take more."""

SCENES: Final = (
    Scene(
        name="4 clients, each alternates",
        model=alternating(DEMO, TINY),
        settings=BUDGET,
    ),
    Scene(
        name="2 clients for each model",
        model=lambda client, _: (DEMO, TINY)[client % 2],
        settings=BUDGET,
    ),
    Scene(
        name="4 clients, each alternates; a limit of address space",
        model=alternating(FIRST, SECOND),
        default=FIRST,
        settings={},
        limited=True,
    ),
    Scene(
        name="4 clients, each alternates; kills while a model is loaded",
        model=alternating(DEMO, TINY),
        settings=BUDGET,
        blows=(Blow.ENGINE_KILL, Blow.GROUP_KILL),
    ),
)


def built(folder: Path, limit: float) -> None:
    """Write the models; two of the large ones do not fit into ``limit`` bytes."""
    # Imported late: whoever reads a drill's help needs no torch.
    import torch  # noqa: PLC0415

    from scripts.random_model.folder import build  # noqa: PLC0415
    from scripts.random_model.shapes import SHAPES  # noqa: PLC0415

    shape = SHAPES[TINY]
    build(shape, folder / TINY)
    # A table of words takes memory and no time.
    words = round((limit - RUNTIME) * SHARE / torch.float32.itemsize / WIDTH)
    encoder: dict[str, Any] = {**shape.parts["text_encoder"], "vocab_size": words}
    large = replace(shape, parts={**shape.parts, "text_encoder": encoder})
    for seed, name in enumerate((FIRST, SECOND), 1):
        build(large, folder / name, seed=seed)
