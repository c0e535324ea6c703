"""Small images of unfinished ones: one pixel per latent cell, by a linear map.

A decoder is far from linear, but what it makes of a latent cell, averaged over the pixels of
that cell, nearly is. For the cells z (C latent channels) of decoded latents and their averages
y (red, green, blue) the map W of ``y = W' [z, 1]`` is the one with the least squared error

    sum |y - W' x|^2 + r |W|^2,    x = [z, 1]

which the normal equations give: ``(sum x x' + r I) W = sum x y'``. Both sums are means over the
cells of an image, so that images of any size add as much, the latest ones the most; (C + 1)
times 3 numbers are all that is learned. So the map is right for any autoencoder, and nothing
about SD 1.5, SDXL or the demo model is written down here. It learns from the images that the
engine decodes anyway, and before the first of them from small decodes: of smooth random latents,
and of the middle of the very latents that are to be shown.

Latents in the making are mostly noise. What they are on the way to is in the UNet's latest
prediction: with the noise schedule's a = alphas_cumprod[t] and latents x of variance one,
``x0 = (x - sqrt(1 - a) e) / sqrt(a)`` where it predicts the noise e (Song et al., DDIM,
arXiv:2010.02502, eq. 12), and ``x0 = sqrt(a) x - sqrt(1 - a) v`` where it predicts the velocity v
(Salimans and Ho, arXiv:2202.00512). This estimate is what is shown.

A small VAE of the user's choice (TINY_VAE) takes the place of the map: it decodes the estimate.

Everything here reads; no generator, scheduler or latents of an image change.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import structlog
import torch

from service.core.events import Previewed
from service.core.image import RawImage
from service.diffusion.load import Model
from service.diffusion.loop.decode import decode, levels
from service.diffusion.loop.order import Sample
from service.diffusion.loop.row import Row
from service.diffusion.memory.usage import is_device_lost

log = structlog.get_logger(__name__)

SECONDS: Final = 0.5
"""Between two previews of a job."""

KEPT: Final = 4
"""Decoded images that wait to be learned from, for the day that somebody watches."""

FORGOTTEN: Final = 0.9
"""What the sums keep at each further image: the last ten or so count."""

RIDGE: Final = 1e-3
"""Against a latent's mean square of about one; it decides where images leave the map open."""

SAMPLES: Final = 4
SAMPLE_CELLS: Final = 16
SAMPLE_SPOTS: Final = 4
"""Random latents are drawn on so many spots and blown up: decoders know no white noise."""

SAMPLE_SPREAD: Final = 1.5
"""Their standard deviation at the spots; blowing up takes a part of it."""

SAMPLE_WEIGHT: Final = 0.1
"""Of one of them compared with a real image: enough for colours that no image had."""

LARGEST: Final = 256
"""Pixels along the longer side of a preview that a small VAE decodes."""

MIDDLE_CELLS: Final = 32

Array = Any
"""A numpy array."""


class LinearMap:
    """Latent cells to colours, fitted to decoded images."""

    def __init__(self, channels: int) -> None:
        self._left = np.zeros((channels + 1, channels + 1))
        self._right = np.zeros((channels + 1, 3))
        self._weights: Array | None = None

    @property
    def ready(self) -> bool:
        """Whether it has learned anything."""
        return bool(self._left[-1, -1])

    def learn(self, latents: Array, colours: Array, weight: float = 1.0) -> None:
        """Add an image: ``[channels, height, width]`` and ``[height, width, 3]`` from 0 to 255."""
        cells = _cells(latents)
        share = weight / len(cells)
        self._left = FORGOTTEN * self._left + share * cells.T @ cells
        self._right = FORGOTTEN * self._right + share * cells.T @ colours.reshape(-1, 3)
        self._weights = None

    def colours(self, latents: Array) -> Array:
        """Return the image ``[height, width, 3]`` of latents, as bytes."""
        if self._weights is None:
            ridge = RIDGE * self._left[-1, -1] * np.eye(len(self._left))
            ridge[-1, -1] = 0  # Brightness is not pulled towards black.
            self._weights = np.linalg.solve(self._left + ridge, self._right)
        _, height, width = latents.shape
        made = (_cells(latents) @ self._weights).reshape(height, width, 3)
        return np.nan_to_num(made).clip(0, 255).round().astype(np.uint8)


class Previews:
    """Previews of the jobs that are watched; for all others it costs nothing."""

    def __init__(self, model: Model, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._clock = clock
        self._due: dict[str, float] = {}
        """When the next preview of a job is due, of those that somebody watches."""
        self._news: deque[tuple[torch.Tensor, RawImage]] = deque(maxlen=KEPT)
        self._map: LinearMap | None = None
        # A small image would show what the checker is there to hide.
        self._allowed = not model.family.has_safety_checker

    def watch(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to make previews of a job, whether it is here yet or not."""
        if not wanted:
            self._due.pop(job_id, None)
        elif self._allowed:
            self._due.setdefault(job_id, 0.0)

    def learn(self, latents: torch.Tensor, image: RawImage) -> None:
        """Note what the engine decoded; it is looked at when somebody watches."""
        if self._allowed:
            self._news.append((latents, image))

    def after(self, moved: Iterable[tuple[Sample, Row]]) -> list[Previewed]:
        """Return the previews that are due after a step: of a job's first image."""
        if not self._due:
            return []
        made: list[Previewed] = []
        for sample, row in moved:
            job_id = sample.task.job_id
            if sample.index or self._clock() < self._due.get(job_id, math.inf):
                continue
            try:
                made.extend(self._preview(sample, row))
            except Exception as error:
                # It is decoration: no image is lost for it. What broke the GPU will show.
                if is_device_lost(error):
                    raise
                log.warning("preview_failed", job_id=job_id, error=type(error).__name__)
            self._due[job_id] = self._clock() + SECONDS
        return made

    def _preview(self, sample: Sample, row: Row) -> Iterator[Previewed]:
        estimate = row.estimate()
        image = self._model.family.glance(estimate)
        if image is not None:
            colours = levels(_small(image))
        else:
            learned = self._learned(estimate)
            if not learned.ready:
                return
            colours = learned.colours(_array(estimate[0]))
        height, width, _ = colours.shape
        yield Previewed(
            job_id=sample.task.job_id,
            epoch=sample.task.epoch,
            step=sample.steps_done,
            width=width,
            height=height,
            pixels=colours.tobytes(),
        )

    def _learned(self, estimate: torch.Tensor) -> LinearMap:
        """Return the map, with what was decoded so far."""
        if self._map is None:
            # Whatever comes of these decodes, they are not tried again: images will come.
            self._map = LinearMap(self._model.family.limits.latent_channels)
            # A decoder that rests elsewhere is not fetched for a preview.
            if not self._model.offloaded and self._model.family.decoder.device == estimate.device:
                self._begin(self._map, estimate)
        while self._news:
            self._add(self._map, *self._news.popleft())
        return self._map

    def _begin(self, first: LinearMap, estimate: torch.Tensor) -> None:
        for latents in self._samples(estimate):
            self._add(first, latents, decode(self._model, latents, 0), SAMPLE_WEIGHT)
        if not self._news:
            middle = _middle(estimate)
            self._news.append((middle, decode(self._model, middle, 0)))

    def _add(
        self, colours: LinearMap, latents: torch.Tensor, image: RawImage, weight: float = 1.0
    ) -> None:
        found = _array(latents[0])
        colours.learn(found, shrunk(image, found.shape[2], found.shape[1]), weight)

    def _samples(self, like: torch.Tensor) -> Iterable[torch.Tensor]:
        """Return smooth random latents, from a generator of their own."""
        generator = torch.Generator("cpu").manual_seed(0)
        shape = (1, like.shape[1], SAMPLE_SPOTS, SAMPLE_SPOTS)
        for _ in range(SAMPLES):
            spots = SAMPLE_SPREAD * torch.randn(shape, generator=generator, device="cpu")
            cells = torch.nn.functional.interpolate(spots, SAMPLE_CELLS, mode="bilinear")
            yield cells.to(like.device, like.dtype)


def _middle(latents: torch.Tensor) -> torch.Tensor:
    """Return what is in the middle, in a size that costs little to decode."""
    height, width = latents.shape[2:]
    top, left = max(0, height - MIDDLE_CELLS) // 2, max(0, width - MIDDLE_CELLS) // 2
    return latents[:, :, top : top + MIDDLE_CELLS, left : left + MIDDLE_CELLS]


def _small(image: torch.Tensor) -> torch.Tensor:
    """Return an image whose longer side is no longer than LARGEST."""
    height, width = image.shape[2:]
    parts = math.ceil(max(height, width) / LARGEST)
    if parts == 1:
        return image
    return torch.nn.functional.adaptive_avg_pool2d(image.float(), (height // parts, width // parts))


def shrunk(image: RawImage, width: int, height: int) -> Array:
    """Return an image's averages over a grid, ``[height, width, 3]`` from 0 to 255."""
    pixels = np.frombuffer(image.pixels, np.uint8)
    across, down = image.width // width, image.height // height
    return pixels.reshape(height, down, width, across, 3).mean(axis=(1, 3))


def _cells(latents: Array) -> Array:
    """Return ``[height * width, channels + 1]``: one row a cell, with a 1 at its end."""
    cells = latents.reshape(len(latents), -1).T
    return np.concatenate([cells, np.ones((len(cells), 1))], axis=1)


def _array(latents: torch.Tensor) -> Array:
    return latents.detach().float().cpu().numpy().astype(np.float64)
