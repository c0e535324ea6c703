from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from service.diffusion.load import Model
from service.diffusion.loop.decode import decode
from service.errors import GenerationFailed


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Decode as the step loop does."""
    with torch.inference_mode():
        yield


def latents(channels: int = 4) -> torch.Tensor:
    """Draw latents of an image that is wider than high."""
    return torch.randn(1, channels, 8, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("kind", "channels", "factor"), [("sd", 4, 2), ("sdxl", 4, 2), ("tiny_vae", 12, 4)]
)
def test_pixels_are_those_of_diffusers(
    model: Callable[[str], Model], kind: str, channels: int, factor: int
) -> None:
    """Both kinds of VAE give, byte by byte, what diffusers' image processor gives."""
    pipeline = model(kind).family.pipeline
    scaled = latents(channels) / pipeline.vae.config.scaling_factor
    image = pipeline.vae.decode(scaled, return_dict=False)[0]
    (expected,) = pipeline.image_processor.postprocess(image, output_type="pil")

    image = decode(model(kind), latents(channels), seed=7)

    assert (image.width, image.height) == (16 * factor, 8 * factor)
    assert (image.seed, image.unsafe) == (7, False)
    assert image.pixels == np.asarray(expected).tobytes()


def test_latent_statistics(model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDXL VAE that states mean and deviation of its latents is decoded by them."""
    sdxl = model("sdxl")
    config = sdxl.family.pipeline.vae.config
    plain = decode(sdxl, latents(), seed=0)
    # Twice the deviation and no mean is the same as half the scaling factor.
    stated = {**config, "latents_mean": [0.0] * 4, "latents_std": [2.0] * 4}
    monkeypatch.setattr(sdxl.family.pipeline.vae, "_internal_dict", type(config)(stated))

    assert decode(sdxl, latents() / 2, seed=0).pixels == plain.pixels


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_latents_that_are_no_numbers(sd: Model, value: float) -> None:
    """One value that is no number fails the image and the message names the latents."""
    broken = latents()
    broken[0, 1, 2, 3] = value

    with pytest.raises(GenerationFailed, match="latents hold NaN or infinite"):
        decode(sd, broken, seed=0)


def test_image_that_is_no_numbers(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VAE that overflows is told from a denoiser that does."""
    monkeypatch.setattr(
        sd.family.pipeline.vae,
        "decode",
        lambda _latents, **_: (torch.full((1, 3, 4, 4), torch.nan),),
    )

    with pytest.raises(GenerationFailed, match="decoded image hold NaN"):
        decode(sd, latents(), seed=0)
