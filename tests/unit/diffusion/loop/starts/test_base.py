from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from service.core.spec import GenerationSpec
from service.diffusion.conditioning.encoding import Conditioning, TextEmbedding
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise
from service.diffusion.loop.row import Row
from service.diffusion.loop.starts.base import Start, TextStart

REQUEST = GenerationSpec(prompt="a cat", width=32, height=16, steps=6, seed=5)
CONDITIONING = Conditioning(texts=(TextEmbedding(states=torch.zeros(1, 77, 32)),))


class Late(Start):
    """From zeros, through the last two steps."""

    @property
    def steps(self) -> int:
        return 2

    def timesteps(self, scheduler: Any) -> torch.Tensor:
        """Leave the first four steps out."""
        found: torch.Tensor = scheduler.timesteps[4 * scheduler.order :]
        return found

    def latents(
        self, model: Model, scheduler: Any, noise: Noise, encoded: Sequence[Encoded] = ()
    ) -> torch.Tensor:
        """Return what no seed gives."""
        return torch.zeros(1, 4, 8, 16)


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 2), ("heun", 3), ("ddim", 2)])
def test_a_row_begins_where_its_start_says(sd: Model, sampler: str, evaluations: int) -> None:
    """It has the start's latents and the last timesteps of all; its progress ends at the same."""
    request = replace(REQUEST, sampler=sampler)
    scheduler = sd.samplers.new(sampler, request.steps)

    row = Row(sd, scheduler, Late(request), 5, CONDITIONING)

    assert not row.latents.any()
    assert row.evaluations_left == evaluations
    assert row.timestep == scheduler.timesteps[-evaluations]
    while row.evaluations_left:
        row.advance(row.model_input())
    assert row.steps_done == 2


def test_a_text_starts_from_the_noise_of_its_seed(sd: Model) -> None:
    """Every step is done; the same seed gives the same latents."""
    scheduler = sd.samplers.new("euler", 6)
    first, again, other = (
        TextStart(REQUEST).latents(sd, scheduler, Noise(seed)) for seed in (5, 5, 6)
    )

    assert TextStart(REQUEST).steps == 6
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
