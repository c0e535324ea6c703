"""Random-weight models, built once; one thread, for a training may run beside the tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from service.config.table import Config
from service.diffusion.load import Model, load_model
from service.models.catalog import resolve

# numpy 2 asks torch's tensors for keywords that they do not have yet, when a diffusers
# scheduler turns its sigmas into an array. Nothing of ours is in that call.
ARRAY_COPY = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Filter the two warnings that both libraries share the blame for, in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(*ARRAY_COPY))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Leave the other core alone."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(folder: Callable[[str], Path]) -> Callable[..., Model]:
    """Return a loaded tiny model of a kind, shared by all tests."""
    loaded: dict[str, Model] = {}

    def get(kind: str = "sd", **settings: Any) -> Model:
        if kind not in loaded:
            path = folder(kind)
            source = resolve(str(path), path.parent)
            loaded[kind] = load_model(source, Config(model_cache_dir=path.parent, **settings))
        return loaded[kind]

    return get


@pytest.fixture
def sd(model: Callable[[str], Model]) -> Model:
    """Return the tiny model of SD 1.5's shape."""
    return model("sd")
