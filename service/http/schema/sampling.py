"""Whether a model can be drawn with the sampler and the steps that a request asks for."""

from service.core.model import ModelInfo
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.errors import ValidationFailed
from service.models.defaults.known import Known


def demand_sampler(generation: GenerationSpec, model: ModelInfo | Known) -> None:
    """Refuse a pair of sampler and steps that the model's noise schedule does not allow.

    Those of a second pass are errors of ``hires``. Before a model is loaded its files tell the
    schedules alone: the engine refuses the rest.

    Raises:
        ValidationFailed: with the pairs that the model does allow.

    """
    _demand(generation, model)
    if generation.second is not None:
        try:
            _demand(generation.second, model)
        except ValidationFailed as refused:
            faults = refused.errors.get("steps")
            if faults is None:
                raise
            raise ValidationFailed({"hires": [f"steps: {each}" for each in faults]}) from None


def _demand(generation: GenerationSpec, model: ModelInfo | Known) -> None:
    sampler, steps, schedule = generation.sampler, generation.steps, generation.schedule
    if schedule not in model.schedules:
        known = ", ".join(each for each in model.schedules if each in Sampler(sampler).schedules)
        cure = f"{schedule} does not exist for this model; use {known}"
        raise ValidationFailed({"schedule": [cure]})
    if isinstance(model, Known) or model.takes(sampler, steps, schedule):
        return
    if schedule != Schedule.AUTOMATIC:
        works = ", ".join(name for name in model.samplers if model.takes(name, steps, schedule))
        cure = f"{sampler} cannot draw with this model; {schedule} works with {works}"
        raise ValidationFailed({"sampler": [cure]})
    others = ", ".join(name for name in model.samplers if model.takes(name, steps))
    ranges = _written(model.samplers[Sampler(sampler)])
    if ranges:
        other = f"; {steps} steps work with {others}" if others else ""
        raise ValidationFailed(
            {"steps": [f"must be {ranges} for {sampler} with this model{other}"]}
        )
    works = others or "; ".join(
        f"{name} with {_written(found)} steps" for name, found in model.samplers.items() if found
    )
    raise ValidationFailed({"sampler": [f"{sampler} cannot draw with this model; use {works}"]})


def _written(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
