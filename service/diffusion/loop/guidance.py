"""What becomes of a guided prediction before the sampler takes it."""

import torch


def rescaled(guided: torch.Tensor, prompt: torch.Tensor, share: float) -> torch.Tensor:
    """Return a guided prediction with some of the contrast of the prompt's own one.

    Both are ``[1, channels, height, width]``. A ``share`` of 0 changes nothing, and 1 gives it the
    standard deviation of the prompt's prediction: Lin et al., arXiv:2305.08891, section 3.4, as
    diffusers writes it.
    """
    if not share:
        return guided
    sides = (1, 2, 3)
    wanted, found = prompt.std(dim=sides, keepdim=True), guided.std(dim=sides, keepdim=True)
    return share * (guided * (wanted / found)) + (1 - share) * guided
