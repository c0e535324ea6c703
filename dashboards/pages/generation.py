"""The dashboard of generation: how fast images are made, and of what kind."""

from typing import Final

from dashboards import queries as q
from dashboards.kinds import heatmap, lines, tile
from dashboards.layout import Dashboard, Row
from dashboards.pages.demand import demand
from dashboards.pages.shared import gpu_share
from dashboards.panel import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Panel,
    Target,
    Word,
    colored,
    limit,
    override,
)
from service.telemetry.labels import STAGES

STEP: Final = "sd_step_duration_seconds"
SIZE_COLORS: Final = {"small": GREEN, "medium": BLUE, "large": ORANGE, "huge": RED}
STAGE_COLORS: Final[dict[str, str]] = dict(
    zip(STAGES, ("purple", "yellow", BLUE, ORANGE, GREY, GREEN), strict=True)
)


def _tiles() -> list[Panel]:
    by = "job, instance, engine"
    still = f"time() - {q.most('sd_engine_last_step_timestamp_seconds', by=by)}"
    busy = f"{q.total('sd_jobs_running', by=by)} > 0"
    return [
        tile(
            "Images per minute",
            "Finished images. Compare with the requested images below.",
            "none",
            Target(expr=f"60 * {q.rate('sd_images_total')}"),
            thresholds=((None, BLUE),),
            decimals=1,
        ),
        tile(
            "Steps per second",
            "The GPU's pace in denoising, summed over the images in a batch: the figure to "
            "compare cards by.",
            "none",
            Target(expr=q.rate("sd_steps_total")),
            thresholds=((None, BLUE),),
            decimals=1,
        ),
        tile(
            "Megapixels per second",
            "The pace whatever the sizes asked for.",
            "none",
            Target(expr=f"{q.rate('sd_pixels_total')} / 1e6"),
            thresholds=((None, BLUE),),
            decimals=2,
        ),
        tile(
            "p95 generation duration",
            "One in twenty images takes longer in the engine, waiting not included. Above 20 s "
            "the objective of 30 s has no room left for a queue.",
            "s",
            Target(expr=q.quantile(0.95, "sd_generation_duration_seconds")),
            thresholds=((None, GREEN), (15, ORANGE), (25, RED)),
            decimals=1,
        ),
        tile(
            "Step time vs yesterday",
            "Mean time of a step in the last 30 min against the day before the last 24 hours, of "
            "the size class that grew most. Above 130 % with the same batches and model: the GPU "
            "is throttled, shared, or a release made it slow. No yesterday: no steps then of the "
            "sizes made now.",
            "percentunit",
            Target(expr=q.against_yesterday()),
            thresholds=((None, GREEN), (1.15, ORANGE), (1.3, RED)),
            words={
                q.NOT_THEN: Word(text="No yesterday", color=GREY),
                q.NOT_NOW: Word(text="No traffic", color=GREY),
            },
            decimals=0,
        ),
        tile(
            "Time since the last step",
            "Longest time since a step, of the engines that have jobs. A step should end every "
            "second or so. Red: an engine hangs and is restarted soon. Idle: no engine has jobs.",
            "s",
            Target(expr=f"max({still} and ({busy}))\nor ({q.total('sd_jobs_running')} == 0) - 1"),
            thresholds=((None, GREEN), (10, ORANGE), (30, RED)),
            words={-1: Word(text="Idle", color=GREY)},
            decimals=1,
        ),
        tile(
            "Batch occupancy",
            "Mean share of the places that a batch may have, by the configured cap. 100 % with a "
            "queue means that the GPU is full; little is normal with little to do.",
            "percentunit",
            Target(expr=q.mean("sd_batch_occupancy_ratio")),
            thresholds=((None, BLUE),),
            decimals=0,
        ),
        gpu_share(
            "GPU time useful",
            "Share of the GPU's time that became images. Below 90 % the service dashboard says "
            "what became of the rest.",
            'use="useful"',
            ((None, RED), (0.7, ORANGE), (0.9, GREEN)),
        ),
    ]


def _speed() -> list[Panel]:
    return [
        lines(
            "p95 generation duration by size class",
            "Which size is slow. All of them: the GPU; only the largest: its memory or the batch.",
            "s",
            Target(
                expr=q.quantile(0.95, "sd_generation_duration_seconds", by="size_class"),
                legend="{{size_class}}",
                exemplar=True,
            ),
            overrides=colored(SIZE_COLORS),
        ),
        lines(
            "Mean stage duration",
            "Where an image's time goes. Denoising should be nearly all of it; a thick vae_decode "
            "hints at large images or at VAE_TILING, a thick image_encode at the processor.",
            "s",
            Target(expr=q.mean("sd_stage_duration_seconds", by="stage"), legend="{{stage}}"),
            overrides=colored(STAGE_COLORS),
            stacked=True,
        ),
        lines(
            "p95 stage duration",
            "The slow ones by stage: what to look at for the tail of the latency.",
            "s",
            Target(
                expr=q.quantile(0.95, "sd_stage_duration_seconds", by="stage"),
                legend="{{stage}}",
                exemplar=True,
            ),
            overrides=colored(STAGE_COLORS),
        ),
        heatmap(
            "Denoising step duration",
            "How steps spread. One band is healthy; a second one above is a second kind of "
            "request, or a GPU that is throttled at times.",
            "s",
            Target(expr=q.rate(f"{STEP}_bucket", by="le")),
        ),
        lines(
            "Denoising step duration by size class",
            "Mean and p95 for one batch. It grows with the batch: look at the batch size below "
            "before blaming the GPU.",
            "s",
            Target(expr=q.mean(STEP, by="size_class"), legend="{{size_class}} mean"),
            Target(
                expr=q.quantile(0.95, STEP, by="size_class"),
                legend="{{size_class}} p95",
                exemplar=True,
            ),
            overrides=[
                *colored({f"/^{name} /": color for name, color in SIZE_COLORS.items()}),
                override("/ p95$/", custom_lineStyle={"dash": [8, 6], "fill": "dash"}),
            ],
        ),
        lines(
            "Denoising step duration by engine",
            "Mean by engine and size class. An engine well above the others at the same size: "
            "its GPU is throttled or shared with another program.",
            "s",
            Target(
                expr=q.mean(STEP, by="engine, size_class"),
                legend="engine {{engine}}, {{size_class}}",
            ),
        ),
    ]


def _throughput() -> list[Panel]:
    return [
        lines(
            "Images",
            "Finished images per minute, and images requested by accepted jobs. If the lines stay "
            "apart, the queue grows.",
            "opm",
            Target(expr=f"60 * {q.rate('sd_images_total')}", legend="made"),
            Target(expr=f"60 * {q.rate('sd_job_images_sum')}", legend="asked for"),
            overrides=colored({"made": GREEN, "asked for": GREY}),
        ),
        lines(
            "Denoising steps",
            "Steps per second of each engine. Falling while jobs wait means slower steps or "
            "emptier batches.",
            "ops",
            Target(expr=q.rate("sd_steps_total", by="engine"), legend="engine {{engine}}"),
            stacked=True,
        ),
        lines(
            "Megapixels",
            "Throughput that can be compared whatever the sizes asked for; in millions a second.",
            "none",
            Target(expr=f"{q.rate('sd_pixels_total')} / 1e6", legend="megapixels"),
        ),
    ]


def _batches() -> list[Panel]:
    return [
        lines(
            "Batch size by size class",
            "Mean batch size. More is cheaper per image, up to where the GPU is full.",
            "none",
            Target(expr=q.mean("sd_batch_size", by="size_class"), legend="{{size_class}}"),
            overrides=colored(SIZE_COLORS),
        ),
        lines(
            "Batch size and limit",
            "The latest step, the configured cap, and, with BATCH_CALIBRATION, the largest batch "
            "that gained speed when measured. Where a cap is never reached while jobs wait, "
            "their sizes cannot share a batch, or memory ran out: the engine then halves the "
            "batches of that size for a while.",
            "short",
            Target(expr=q.total("sd_batch_live_images"), legend="in the batch"),
            Target(expr=q.total("sd_batch_limit"), legend="cap"),
            Target(expr=q.total("sd_batch_calibrated"), legend="measured cap"),
            overrides=[
                *colored({"in the batch": BLUE, "measured cap": "purple"}),
                limit("cap"),
            ],
        ),
        heatmap(
            "Batch occupancy distribution",
            "How full batches are. Much at the top: a higher cap or one more GPU; all at the "
            "bottom: one would do.",
            "percentunit",
            Target(expr=q.rate("sd_batch_occupancy_ratio_bucket", by="le")),
        ),
    ]


def dashboard() -> Dashboard:
    """Describe the dashboard of generation."""
    return Dashboard(
        uid="sd-generation",
        title="Stable Diffusion API: generation",
        description="Duration, throughput, batching and demand of generations.",
        rows=[
            Row(title="", panels=_tiles()),
            Row(title="Duration", panels=_speed()),
            Row(title="Throughput", panels=_throughput()),
            Row(title="Batching", panels=_batches()),
            Row(title="Demand", panels=demand()),
        ],
    )
