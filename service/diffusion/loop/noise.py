"""Random numbers of one image."""

import torch

from service.diffusion.families.base import Family

ALIKE = 0.9995
"""Cosine of two directions between which there is no arc to follow."""


class Noise:
    """The random numbers of one image, in the order in which ``pipe(...)`` draws them.

    They come from a generator of the CPU, so that a seed gives the same whatever device computes.
    """

    def __init__(self, seed: int, *, subseed: int = 0, strength: float = 0.0) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self._subseed, self._strength = subseed, strength

    def first(self, family: Family, width: int, height: int) -> torch.Tensor:
        """Return the noise ``[1, channels, height, width]`` that an image begins with, on the CPU.

        With a strength it is on the way to the noise of the subseed.
        """
        noise = family.latents(width, height, self.generator)
        if not self._strength:
            return noise
        other = family.latents(width, height, torch.Generator("cpu").manual_seed(self._subseed))
        return slerp(noise[0].float(), other[0].float(), self._strength)[None].to(noise.dtype)


def slerp(low: torch.Tensor, high: torch.Tensor, share: float) -> torch.Tensor:
    """Return what lies between two noises ``[channels, height, width]``, on the arc between them.

    Shoemake, Animating rotation with quaternion curves (1985), as AUTOMATIC1111 writes it in
    ``modules/rng.py``: the columns of each channel are the directions, and lengths are kept.
    """
    directions = (each / each.norm(dim=1, keepdim=True) for each in (low, high))
    cosine = torch.mul(*directions).sum(1)
    if float(cosine.mean()) > ALIKE:
        return low * share + high * (1 - share)
    angle = cosine.acos()
    parts = ((1 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()
    return parts[0].unsqueeze(1) * low + parts[1].unsqueeze(1) * high
