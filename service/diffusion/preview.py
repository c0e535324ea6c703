"""Small pictures of unfinished ones: one pixel per latent cell, by a linear map.

A decoder is far from linear, but what it makes of a latent cell, averaged over the pixels of
that cell, nearly is. For the cells z (C latent channels) of decoded latents and their averages
y (red, green, blue) the map W of ``y = W' [z, 1]`` is the one with the least squared error

    sum |y - W' x|^2 + r |W|^2,    x = [z, 1]

which the normal equations give: ``(sum x x' + r I) W = sum x y'``. Both sums are means over the
cells of a picture, so that pictures of any size add as much, the latest ones the most; (C + 1)
times 3 numbers are all that is learned. So the map is right for any autoencoder, and nothing
about SD 1.5, SDXL or the demo model is written down here. It learns from the pictures that the
engine decodes anyway, and before the first of them from small decodes: of smooth random latents,
and of the middle of the very latents that are to be shown.

Latents in the making are mostly noise. What they are on the way to is in the UNet's latest
prediction: with the noise schedule's a = alphas_cumprod[t] and latents x of variance one,
``x0 = (x - sqrt(1 - a) e) / sqrt(a)`` where it predicts the noise e (Song et al., DDIM,
arXiv:2010.02502, eq. 12), and ``x0 = sqrt(a) x - sqrt(1 - a) v`` where it predicts the velocity v
(Salimans and Ho, arXiv:2202.00512). This estimate is what is shown.

Everything here reads; no generator, scheduler or latents of a picture change.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
import torch

from service.diffusion.decode import decode, has_safety_checker
from service.diffusion.generation import Picture, Previewed
from service.diffusion.load import Model
from service.diffusion.memory import is_device_lost
from service.diffusion.order import Place
from service.diffusion.row import Row

log = structlog.get_logger(__name__)

SECONDS: Final = 0.5
"""Between two previews of a job."""

KEPT: Final = 4
"""Decoded pictures that wait to be learned from, for the day that somebody watches."""

FORGOTTEN: Final = 0.9
"""What the sums keep at each further picture: the last ten or so count."""

RIDGE: Final = 1e-3
"""Against a latent's mean square of about one; it decides where pictures leave the map open."""

SAMPLES: Final = 4
SAMPLE_CELLS: Final = 16
SAMPLE_SPOTS: Final = 4
"""Random latents are drawn on so many spots and blown up: decoders know no white noise."""

SAMPLE_SPREAD: Final = 1.5
"""Their standard deviation at the spots; blowing up takes a part of it."""

SAMPLE_WEIGHT: Final = 0.1
"""Of one of them beside a real picture: enough for colours that no picture had."""

MIDDLE_CELLS: Final = 32

Array = Any
"""A numpy array."""


class LinearMap:
    """Latent cells to colours, fitted to decoded pictures."""

    def __init__(self, channels: int) -> None:
        self._left = np.zeros((channels + 1, channels + 1))
        self._right = np.zeros((channels + 1, 3))
        self._weights: Array | None = None

    @property
    def ready(self) -> bool:
        """Whether it has learned anything."""
        return bool(self._left[-1, -1])

    def learn(self, latents: Array, colours: Array, weight: float = 1.0) -> None:
        """Add a picture: ``[channels, height, width]`` and ``[height, width, 3]`` from 0 to 255."""
        cells = _cells(latents)
        share = weight / len(cells)
        self._left = FORGOTTEN * self._left + share * cells.T @ cells
        self._right = FORGOTTEN * self._right + share * cells.T @ colours.reshape(-1, 3)
        self._weights = None

    def colours(self, latents: Array) -> Array:
        """Return the picture ``[height, width, 3]`` of latents, as bytes."""
        if self._weights is None:
            ridge = RIDGE * self._left[-1, -1] * np.eye(len(self._left))
            ridge[-1, -1] = 0  # Brightness is not pulled towards black.
            self._weights = np.linalg.solve(self._left + ridge, self._right)
        _, height, width = latents.shape
        made = (_cells(latents) @ self._weights).reshape(height, width, 3)
        return np.nan_to_num(made).clip(0, 255).round().astype(np.uint8)


@dataclass(eq=False)
class _Watched:
    """A job that somebody watches."""

    due: float = 0.0


class Previews:
    """Previews of the jobs that are watched; for all others it costs nothing."""

    def __init__(self, model: Model, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._news: deque[tuple[torch.Tensor, Picture]] = deque(maxlen=KEPT)
        self._map: LinearMap | None = None
        # A small picture would show what the checker is there to hide.
        self._allowed = not has_safety_checker(model)

    def watch(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to make previews of a job, whether it is here yet or not."""
        if not wanted:
            self._watched.pop(job_id, None)
        elif self._allowed:
            self._watched.setdefault(job_id, _Watched())

    def learn(self, latents: torch.Tensor, picture: Picture) -> None:
        """Note what the engine decoded; it is looked at when somebody watches."""
        if self._allowed:
            self._news.append((latents, picture))

    def after(self, moved: Iterable[tuple[Place, Row]]) -> list[Previewed]:
        """Return the previews that are due after a step: of a job's first picture."""
        if not self._watched:
            return []
        made: list[Previewed] = []
        for place, row in moved:
            watched = self._watched.get(place.task.job_id)
            if watched is None or place.index or self._clock() < watched.due:
                continue
            try:
                made.extend(self._preview(place, row))
            except Exception as error:
                # It is decoration: no picture is lost for it. What broke the GPU will show.
                if is_device_lost(error):
                    raise
                log.warning("preview_failed", job_id=place.task.job_id, error=type(error).__name__)
            watched.due = self._clock() + SECONDS
        return made

    def _preview(self, place: Place, row: Row) -> Iterator[Previewed]:
        estimate = row.estimate()
        learned = self._learned(estimate)
        if not learned.ready:
            return
        colours = learned.colours(_array(estimate[0]))
        height, width, _ = colours.shape
        yield Previewed(
            job_id=place.task.job_id,
            step=row.steps_done,
            width=width,
            height=height,
            pixels=colours.tobytes(),
        )

    def _learned(self, estimate: torch.Tensor) -> LinearMap:
        """Return the map, with what was decoded so far."""
        if self._map is None:
            # Whatever comes of these decodes, they are not tried again: pictures will come.
            self._map = LinearMap(self._model.pipeline.vae.config.latent_channels)
            # A decoder that rests elsewhere is not fetched for a preview.
            if not self._model.offloaded and self._model.pipeline.vae.device == estimate.device:
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
        self, colours: LinearMap, latents: torch.Tensor, picture: Picture, weight: float = 1.0
    ) -> None:
        found = _array(latents[0])
        colours.learn(found, shrunk(picture, found.shape[2], found.shape[1]), weight)

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


def shrunk(picture: Picture, width: int, height: int) -> Array:
    """Return a picture's averages over a grid, ``[height, width, 3]`` from 0 to 255."""
    pixels = np.frombuffer(picture.pixels, np.uint8)
    across, down = picture.width // width, picture.height // height
    return pixels.reshape(height, down, width, across, 3).mean(axis=(1, 3))


def _cells(latents: Array) -> Array:
    """Return ``[height * width, channels + 1]``: one row a cell, with a 1 at its end."""
    cells = latents.reshape(len(latents), -1).T
    return np.concatenate([cells, np.ones((len(cells), 1))], axis=1)


def _array(latents: torch.Tensor) -> Array:
    return latents.detach().float().cpu().numpy().astype(np.float64)
