"""The time of a denoising step, against what it was a day ago on the same device."""

from collections.abc import Iterator
from typing import Final

from alerts.rule import ENGINE, Alert, Recording, Severity
from alerts.windows import Windows

SLOWER: Final = 1.3
FEWEST_STEPS: Final = 60
"""Three images of 20 steps; fewer say little about a mean."""
LARGER_BATCH: Final = 1.2
"""A step of more images takes longer, and that is as it should be."""
LEVEL: Final = "instance_size_class"
"""The series have the label ``engine`` as well; their names are older than it."""


def recordings(windows: Windows) -> Iterator[Recording]:
    """Return means and counts by size class, of now and of the time to compare with."""
    for name, window in (
        ("now", f"[{windows.step_now}]"),
        ("day_ago", f"[{windows.step_before}] offset {windows.step_offset}"),
    ):
        yield Recording(
            name=f"{LEVEL}:sd_steps:count_{name}",
            expr=_sum(f"sd_step_duration_seconds_count{window}"),
        )
        for metric in ("sd_step_duration_seconds", "sd_batch_size"):
            yield Recording(
                name=f"{LEVEL}:{metric}:mean_{name}",
                expr=f"{_sum(f'{metric}_sum{window}')}\n/ ({_sum(f'{metric}_count{window}')} > 0)",
            )


def _engine_0(series: str) -> str:
    """Return ``series`` where those without a label ``engine`` have ``"0"``.

    An earlier version showed no such label, and a release is what makes steps slow. The label
    ``before`` keeps its series apart from those of the same engine after the upgrade.
    """
    marked = f'label_replace({series}, "before", "upgrade", "engine", "")'
    return f'label_replace({marked}, "engine", "0", "engine", "")'


def _sum(counter: str) -> str:
    return f"""sum by (job, instance, engine, size_class) (
  {_engine_0(f"increase({counter})")}
)"""


def alerts(windows: Windows) -> tuple[Alert, ...]:
    """Return the one alert; another model or another GPU than a day ago is not compared.

    An engine gets another GPU when one before it in a cluster has gone, or when it was set so.
    """
    step, batch, count = (
        f"{LEVEL}:{name}"
        for name in ("sd_step_duration_seconds:mean", "sd_batch_size:mean", "sd_steps:count")
    )
    now = _engine_0("sd_model_info")
    before = _engine_0(f"sd_model_info offset {windows.step_offset}")
    model = "job, instance, engine, model_id, version, device, dtype"
    gpu, gpu_before = "sd_engine_gpu_info", f"sd_engine_gpu_info offset {windows.step_offset}"
    return (
        Alert(
            name="SDStepTimeRegressed",
            severity=Severity.TICKET,
            expr=f"""
                {step}_now / {step}_day_ago > {SLOWER}
                and {count}_now >= {FEWEST_STEPS}
                and {count}_day_ago >= {FEWEST_STEPS}
                and {batch}_now / {batch}_day_ago <= {LARGER_BATCH}
                and on (job, instance, engine) (
                  {now}
                  and on ({model})
                    {before}
                )
                unless on (job, instance, engine) (
                  ({gpu} and on (job, instance, engine) {gpu_before})
                  unless on (job, instance, engine, gpu) {gpu_before}
                )
            """,
            lasting=windows.step_for,
            summary=f"{ENGINE} takes longer for a step than a day ago",
            description="A denoising step of the size class {{ $labels.size_class }} takes "
            '{{ $value | printf "%.2f" }} times as long as a day ago, with the same model and no '
            "larger batches.",
            dashboard="sd-generation",
        ),
    )
