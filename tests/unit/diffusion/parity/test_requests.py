"""Random requests over every construct: each image is the one that diffusers makes by itself.

200 of a fixed seed here; ``python -m tests.support.parity`` draws as many as are asked for.
"""

from pathlib import Path

import pytest

from tests.support.parity.pairs import SENSITIVE
from tests.support.parity.prompts import PromptPairs
from tests.support.parity.random_requests import FAMILIES, compared, random_request, table

pytestmark = [
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    # A tree of torchsde, as diffusers asks it: a rounding error outside of its ends.
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

SEED = 8
COUNT = 200


@pytest.mark.parametrize("model", FAMILIES)
def test_random_requests_as_in_diffusers(tmp_path: Path, model: str) -> None:
    """Whatever a request is made of, in a shared batch it has the image of its meaning."""
    pair = PromptPairs(tmp_path / "models")(FAMILIES[model])
    numbers = range(COUNT)[list(FAMILIES).index(model) :: len(FAMILIES)]
    requests = [random_request(SEED, number) for number in numbers]

    found = list(compared(pair, tmp_path / "loras", requests))

    faults = [str(each) for each in found if not each.good]
    assert not faults, "\n".join([table({model: found}), *faults])
    assert sum(each.kind == "sensitive" for each in found) <= SENSITIVE * len(found)
    assert sum(each.shared for each in found) > len(found) / 2
