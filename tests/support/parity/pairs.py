"""Models for parity checks, each read by the service and by diffusers; and the check itself."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.config.table import Config
from service.diffusion.load import Model, load_model
from service.models import catalog
from tests.support.models import tiny_models
from tests.support.parity.cases import Asked, verdicts
from tests.support.parity.references import Reference

log = logging.getLogger(__name__)

DEMO: Final = "demo"
SENSITIVE: Final = 0.1
"""Share of cases that rounding may decide; more of them would hide a fault of batches."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model's folder, read by the service and by diffusers."""

    model: Model
    reference: Reference


class Pairs:
    """Random-weight models by the names of their builders, and the demo, each loaded once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._loaded: dict[str, Pair] = {}

    def __call__(self, kind: str) -> Pair:
        if kind not in self._loaded:
            self._loaded[kind] = load(self._folder(kind), self._root)
        return self._loaded[kind]

    def _folder(self, kind: str) -> Path:
        if kind == DEMO:
            return catalog.DEMO_FOLDER
        folder: Path = getattr(tiny_models, f"build_{kind}")(self._root / kind)
        return tiny_models.with_loud_unet(folder)


def load(folder: Path, cache_dir: Path) -> Pair:
    """Read a model's folder twice."""
    model = load_model(catalog.resolve(str(folder), cache_dir), Config(model_cache_dir=cache_dir))
    return Pair(model=model, reference=Reference(folder))


def check(pair: Pair, cases: Sequence[Asked]) -> None:
    """Check cases of one model, all in one step loop; log what they showed."""
    found = verdicts(pair.model, pair.reference, cases)
    log.info("%s: %s", pair.reference.folder.name, dict(Counter(each.kind for each in found)))
    for each in found:
        if each.kind != "same":
            log.info("%s", each)
    faults = [str(each) for each in found if not each.good]
    assert not faults, "\n".join([f"{len(faults)} of {len(found)} cases:", *faults])
    assert sum(each.kind == "sensitive" for each in found) <= SENSITIVE * len(found)
