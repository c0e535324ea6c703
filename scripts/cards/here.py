"""What is here to be measured: a card, and a model."""

import os
from pathlib import Path

from service.errors import ModelMissing, NotInstalled
from service.gpu.card import NoCardError, demand_limit, look
from service.models import catalog
from service.models.source import Source


def on_gpu(vram: float) -> bool:
    """Tell whether there is a GPU that torch can use.

    Raises:
        ConfigError: it has less memory than the cap.
        NotInstalled: there is no torch.

    """
    try:
        import torch  # noqa: PLC0415 - --help needs none
    except ImportError as error:
        raise NotInstalled(f"{error}. Install what the engine needs: make install") from error

    if not torch.cuda.is_available():
        return False
    try:
        card = look(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    except NoCardError:
        return False
    if card is not None and card.total is not None:
        demand_limit(vram, card.total, card.name)
    return True


def found(model: str) -> Source:
    """Return a model that is here.

    Raises:
        ModelError: it is not.

    """
    cache = Path(os.environ.get("MODEL_CACHE_DIR") or "models")
    source = catalog.resolve(model, cache)
    if source.path is None:
        raise ModelMissing(
            f"--model {model}: is not in {cache}. Fetch it ('sd-api models pull {model}'), or "
            "build one of its shape: python -m scripts.random_model, --model models/random-sd15."
        )
    return source
