"""Random requests over every construct: each image is the one that diffusers makes by itself.

200 of a fixed seed here; ``python -m tests.support.parity`` draws as many as are asked for.
"""

from collections.abc import Iterator

import pytest
import torch

from tests.support.parity.pairs import SENSITIVE
from tests.support.parity.random_requests import Comparison, random_request, table

pytestmark = [
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    # A tree of torchsde, as diffusers asks it: a rounding error outside of its ends.
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

SEED = 8
SHORT, COUNT = 60, 200
"""Requests of the short run, and of both."""


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """Return models of every family, and the demo, with adapters and embeddings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Comparison(tmp_path_factory.mktemp("random"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "numbers",
    [range(SHORT), pytest.param(range(SHORT, COUNT), marks=pytest.mark.long)],
    ids=["few", "others"],
)
def test_random_requests_as_in_diffusers(comparison: Comparison, numbers: range) -> None:
    """Whatever a request is made of, in a shared batch it has the image of its meaning.

    Requests to all models come at once, and an engine that holds all of them draws the images.
    """
    found = list(comparison([random_request(SEED, number) for number in numbers]))

    faults = [str(each) for each in found if not each.good]
    assert not faults, "\n".join([table(found), *faults])
    assert sum(each.kind == "sensitive" for each in found) <= SENSITIVE * len(found)
    assert sum(each.shared for each in found) > len(found) / 2
