"""What is asked for: the last row of the dashboard of generation."""

from collections.abc import Sequence
from typing import Final

from dashboards import queries as q
from dashboards.kinds import bars
from dashboards.panel import Panel, Target
from service.telemetry.labels import PIXELS

STEP_BINS: Final = (4, 10, 15, 20, 25, 30, 40, 50)
IMAGE_BINS: Final = (1, 2, 4, 8, 16)
"""Some of the bounds that the buckets have."""

SHAPES: Final = {
    196608: "512 x 384",
    393216: "768 x 512",
}
"""Names of the areas that are no squares."""


def demand() -> list[Panel]:
    """Show how sizes, steps, images and samplers are distributed."""
    return [
        bars(
            "Requested sizes",
            "Jobs by pixels of an image: this many or fewer. A move to larger ones explains a "
            "slower service without any fault.",
            "none",
            *_bins("sd_job_pixels", PIXELS, [*map(_shape, PIXELS), "larger"]),
            decimals=0,
            width=7,
            height=10,
        ),
        bars(
            "Requested steps",
            "Jobs by steps. Time grows in proportion: halving the steps doubles the capacity.",
            "none",
            *_bins("sd_job_steps", STEP_BINS, _counts(STEP_BINS)),
            decimals=0,
            width=7,
            height=10,
        ),
        bars(
            "Requested images per job",
            "Jobs by images. Many in a job fill the batch, and make the others wait.",
            "none",
            *_bins("sd_job_images", IMAGE_BINS, _counts(IMAGE_BINS)),
            decimals=0,
            width=5,
            height=10,
        ),
        bars(
            "Requested samplers",
            "Which samplers are worth tuning.",
            "none",
            Target(expr=q.grown("sd_jobs_accepted_total", by="sampler"), legend="{{sampler}}"),
            decimals=0,
            width=5,
            height=10,
        ),
    ]


def _bins(name: str, bounds: Sequence[float], names: Sequence[str]) -> list[Target]:
    """Ask for each bucket by itself: the bars then do not depend on who draws them."""
    uppers: list[float | None] = [*bounds, None]
    return [
        Target(expr=q.between(name, above, most), legend=legend)
        for above, most, legend in zip([None, *bounds], uppers, names, strict=True)
    ]


def _counts(bounds: Sequence[int]) -> list[str]:
    """Name the whole numbers between ``bounds``: 1, 2, 3-4, more."""
    firsts = [1, *(bound + 1 for bound in bounds)]
    return [
        *(
            str(last) if first == last else f"{first}-{last}"
            for first, last in zip(firsts, bounds, strict=False)
        ),
        f"more than {bounds[-1]}",
    ]


def _shape(pixels: float) -> str:
    side = round(pixels**0.5)
    return f"{side} x {side}" if side * side == pixels else SHAPES[int(pixels)]
