"""The limits and defaults of requests to a model, by the settings and by what suits the model."""

from collections.abc import Container

from service.config.table import Config
from service.core.limits import CLIP_LAYERS, SD, RequestLimits, Sizes
from service.core.recipe import NO_RECIPE, Recipe
from service.core.sampler import ETA, Sampler, Schedule, fitting, resolved
from service.core.spec import GenerationSpec


def limits_of(
    config: Config,
    sizes: Sizes = SD,
    recipe: Recipe = NO_RECIPE,
    max_clip_skip: int = CLIP_LAYERS,
    schedules: Container[str] = tuple(Schedule),
) -> RequestLimits:
    """Return what holds for requests to a model that draws these sizes and has this recipe.

    What a setting gives holds as it is; values of the model give way to it. A noise schedule that
    the model does not have is no default of it: requests that name none would be refused.
    """
    low, high, usual = _sizes(config, sizes, recipe.size)
    sampler = config.default_sampler or recipe.sampler or GenerationSpec.sampler
    steps = config.default_steps
    if steps is None:
        most = Sampler(resolved(sampler)[0]).most_steps or config.max_steps
        steps = min(recipe.steps or GenerationSpec.steps, config.max_steps, most)
    schedule = config.default_schedule or recipe.schedule or Schedule.AUTOMATIC
    if schedule not in schedules:
        schedule = Schedule.AUTOMATIC
    guidance = config.default_guidance_scale
    if guidance is None:
        guidance = recipe.guidance_scale
    return RequestLimits(
        max_prompt_chars=config.max_prompt_chars,
        default_steps=steps,
        max_steps=config.max_steps,
        min_size=low,
        default_size=usual,
        max_size=high,
        max_images=config.max_images,
        default_sampler=sampler,
        default_guidance_scale=GenerationSpec.guidance_scale if guidance is None else guidance,
        default_guidance_rescale=recipe.guidance_rescale or 0.0,
        default_eta=(recipe.eta or 0.0) if sampler in ETA else 0.0,
        default_schedule=fitting(schedule, sampler),
        max_clip_skip=max_clip_skip,
    )


def _sizes(config: Config, sizes: Sizes, wanted: int | None) -> tuple[int, int, int]:
    low, usual, high = config.min_size, config.default_size, config.max_size
    if low is None:
        low = min(sizes.smallest, usual or sizes.smallest, high or sizes.smallest)
    if high is None:
        high = max(sizes.largest, low, usual or 0)
    if usual is None:
        usual = min(max(wanted or sizes.usual, low), high)
    return low, high, usual
