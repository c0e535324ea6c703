"""The noise schedule that a model was trained on: the numbers of its scheduler_config.json.

The class that the file names is never imported. It may need a package that is not here, or be
newer than the library, and a sampler of ours takes its place anyway.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from service.errors import ModelUnsuitable

FILE: Final = Path("scheduler") / "scheduler_config.json"

PREDICTION_TYPES: Final = ("epsilon", "v_prediction", "sample")
"""What a UNet may predict: the noise, the velocity (arXiv:2202.00512) or the clean latents."""

FOREIGN: Final = (
    *("EDM", "CosineDPM", "KarrasVe", "ScoreSde", "CMStochastic", "UnCLIP"),
    *("Amused", "VQDiffusion", "DDPMWuerstchen"),
)
"""Beginnings of the names of schedulers whose noise is another than our samplers take away."""

FLOW: Final = "rectified flow"
FLOW_KEYS: Final = ("base_shift", "max_shift", "use_dynamic_shifting")
SPACINGS: Final = ("linspace", "leading", "trailing")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What samplers are built with."""

    numbers: Mapping[str, Any]
    """As in the file, under its names; what it does not name is each sampler's own default."""
    prediction_from: str
    """What said which prediction type it is: for the log and ``/health``."""
    kind: str = ""
    """Class that the file names."""

    @property
    def prediction_type(self) -> str:
        """One of ``PREDICTION_TYPES``."""
        return str(self.numbers.get("prediction_type", PREDICTION_TYPES[0]))

    def predicting(self, prediction_type: str, said_by: str, **changes: Any) -> "Schedule":
        """Return the schedule with another prediction type, and further changes."""
        numbers = {**self.numbers, "prediction_type": prediction_type, **changes}
        return replace(self, numbers=numbers, prediction_from=said_by)


def read(content: Mapping[str, Any], family: str, owner: str) -> Schedule:
    """Take the numbers out of a scheduler's configuration, as the family's pipeline changes them.

    ``owner`` is what the errors name: the file, or the model.

    Raises:
        ModelUnsuitable: our samplers do not follow such a schedule.

    """
    demand_noise(content, owner)
    defaults = content.get("_use_default_values", ())
    dropped = set(defaults) if isinstance(defaults, list | tuple) else set()
    numbers = {
        name: value
        for name, value in content.items()
        if not name.startswith("_") and name not in dropped
    }
    if numbers.get("prediction_type", "epsilon") is None:
        del numbers["prediction_type"]
    _demand_numbers(numbers, owner)
    if family == "sd":
        # StableDiffusionPipeline corrects both in old files when it is built.
        if "steps_offset" in numbers:
            numbers["steps_offset"] = 1
        if "clip_sample" in numbers:
            numbers["clip_sample"] = False
    said = "scheduler_config.json" if "prediction_type" in numbers else "default"
    found = Schedule(numbers=numbers, prediction_from=said, kind=_kind(content))
    if found.prediction_type not in PREDICTION_TYPES:
        flow = f" ({FLOW})" if "flow" in found.prediction_type else ""
        raise ModelUnsuitable(
            f"{owner}: prediction_type must be one of {', '.join(PREDICTION_TYPES)}, and is "
            f"{found.prediction_type!r}{flow}. Use another model."
        )
    return found


def _demand_numbers(numbers: Mapping[str, Any], owner: str) -> None:
    """Name the key that no sampler could work with; what is not named has a default."""
    steps = numbers.get("num_train_timesteps", 1000)
    if type(steps) is not int or steps < 1:
        raise _wrong(owner, "num_train_timesteps", "a whole number above 0", steps)
    for key in ("beta_start", "beta_end"):
        beta = numbers.get(key, 0.01)
        if type(beta) not in {int, float} or not 0 < beta < 1:
            raise _wrong(owner, key, "a number between 0 and 1", beta)
    spacing = numbers.get("timestep_spacing", SPACINGS[0])
    if spacing not in SPACINGS:
        raise _wrong(owner, "timestep_spacing", f"one of {', '.join(SPACINGS)}", spacing)


def _wrong(owner: str, key: str, wanted: str, value: object) -> ModelUnsuitable:
    return ModelUnsuitable(
        f"{owner}: {key} must be {wanted}, and is {value!r}. Correct it, or take the file from the "
        "model's publisher."
    )


def demand_noise(content: Mapping[str, Any], owner: str) -> None:
    """Refuse a scheduler whose noise no sampler here takes away.

    Raises:
        ModelUnsuitable: with its class.

    """
    kind = _kind(content)
    flows = any(content.get(key) for key in ("use_flow_sigmas", *FLOW_KEYS))
    if "Flow" in kind or flows:
        raise ModelUnsuitable(
            f"{owner} describes a {FLOW} ({kind}), which no sampler here follows. Use a Stable "
            "Diffusion 1.x, 2.x or XL model."
        )
    if kind.startswith(FOREIGN):
        raise ModelUnsuitable(
            f"{owner} needs {kind}, and no sampler here follows its noise schedule. Use a Stable "
            "Diffusion 1.x, 2.x or XL model."
        )


def _kind(content: Mapping[str, Any]) -> str:
    named = content.get("_class_name", "")
    return str(named[-1] if isinstance(named, list) and named else named)
