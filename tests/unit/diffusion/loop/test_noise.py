import math

import pytest
import torch

from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise, slerp


def drawn(sd: Model, seed: int, **settings: float) -> torch.Tensor:
    """Return the noise that an image begins with."""
    return Noise(seed, **settings).first(sd.family, 32, 16)  # type: ignore[arg-type]


def test_a_strength_of_nothing_is_the_seed_alone(sd: Model) -> None:
    """The subseed changes nothing then, bit for bit."""
    plain = drawn(sd, 5)

    assert torch.equal(plain, torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(plain, drawn(sd, 5, subseed=9, strength=0.0))


def test_a_strength_of_one_is_the_noise_of_the_subseed(sd: Model) -> None:
    """Up to rounding."""
    assert torch.allclose(drawn(sd, 5, subseed=9, strength=1.0), drawn(sd, 9), atol=1e-5)


def test_the_same_seed_twice_is_no_variation(sd: Model) -> None:
    """There is no arc between two equal noises."""
    assert torch.allclose(drawn(sd, 5, subseed=5, strength=0.5), drawn(sd, 5), atol=1e-6)


def test_noises_in_between_keep_the_spread(sd: Model) -> None:
    """Half way between two noises there is noise again, which is no mean of both."""
    one, other = drawn(sd, 5), drawn(sd, 9)
    between = drawn(sd, 5, subseed=9, strength=0.5)

    assert between.std() == pytest.approx(1.0, abs=0.1)
    assert ((one + other) / 2).std() == pytest.approx(math.sqrt(0.5), abs=0.1)


def test_the_numbers_after_the_first_noise_are_those_of_the_seed(sd: Model) -> None:
    """A sampler that adds noise gets the same, with or without a variation."""
    plain, varied = Noise(5), Noise(5, subseed=9, strength=0.5)
    for noise in (plain, varied):
        noise.first(sd.family, 32, 16)

    one, other = (torch.randn(3, generator=each.generator) for each in (plain, varied))
    assert torch.equal(one, other)


def test_columns_turn_as_in_automatic1111() -> None:
    """Each column of a channel is a direction, and the formula is that of great circles."""
    low, high = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1)).double()

    found = slerp(low, high, 0.3)

    for channel in range(4):
        for column in range(6):
            one, other = low[channel, :, column], high[channel, :, column]
            angle = math.acos(float(one @ other / (one.norm() * other.norm())))
            parts = [math.sin(share * angle) / math.sin(angle) for share in (0.7, 0.3)]
            wanted = parts[0] * one + parts[1] * other
            assert torch.allclose(found[channel, :, column], wanted)
