"""The recipe of a model: what its files say of the values that requests to it want.

From the surest to a guess: a ``recipe.json`` next to it, the table of names on the hub, the weights
and the scheduler's file, and its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from service.core.limits import LARGEST
from service.core.recipe import NO_RECIPE, Recipe
from service.core.sampler import ALIASES, SAMPLER_NAMES, Schedule, fitting
from service.errors import ModelUnsuitable
from service.models import catalog, files
from service.models.defaults import table
from service.models.layout import Layout
from service.models.source import Source
from service.models.vae.source import NAME

SUFFIX: Final = ".recipe.json"
LONGEST_NAME: Final = 40
MOST_GUIDANCE: Final = 30
MOST_STEPS: Final = 1000
SIDE: Final = 64
"""Widths and heights are multiples of it."""

DEMO: Final = Recipe(
    name=catalog.DEMO_ID, source="the evaluation of the demo model", guidance_scale=3.0
)

CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "name": (
        lambda value: (
            isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()
        ),
        f"text of 1 to {LONGEST_NAME} printable characters",
    ),
    "steps": (
        lambda value: type(value) is int and 1 <= value <= MOST_STEPS,
        f"a whole number from 1 to {MOST_STEPS}",
    ),
    "guidance_scale": (
        lambda value: type(value) in {int, float} and 0 <= value <= MOST_GUIDANCE,
        f"a number from 0 to {MOST_GUIDANCE}",
    ),
    "guidance_rescale": (
        lambda value: type(value) in {int, float} and 0 <= value <= 1,
        "a number from 0 to 1",
    ),
    "eta": (
        lambda value: type(value) in {int, float} and 0 <= value <= 1,
        "a number from 0 to 1",
    ),
    "sampler": (
        lambda value: value in SAMPLER_NAMES,
        f"one of {', '.join(SAMPLER_NAMES)}",
    ),
    "schedule": (
        lambda value: isinstance(value, str) and value in {*Schedule},
        f"one of {', '.join(Schedule)}",
    ),
    "size": (
        lambda value: type(value) is int and value in range(SIDE, LARGEST + 1, SIDE),
        f"a multiple of {SIDE} up to {LARGEST}",
    ),
    "vae": (
        lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
        "the name of a VAE in the folder vae of MODEL_CACHE_DIR",
    ),
}
"""What ``recipe.json`` may say: when a value is right, and in words."""


def recipe_of(source: Source, found: Layout) -> Recipe:
    """Return the recipe of a model that is here.

    What its ``recipe.json`` leaves out comes from the next source that knows the model.

    Raises:
        ModelUnsuitable: its ``recipe.json`` says what it cannot.
        ModelError: that file is damaged.

    """
    if source.demo:
        return DEMO
    recipe = (
        table.by_id(source.id)
        or _by_weights(found)
        or _by_scheduler(found)
        or _by_schedule(found)
        or table.by_name(_own_name(source))
        or NO_RECIPE
    )
    path = recipe_file(source)
    return recipe if path is None or not path.is_file() else _said(path, recipe)


def recipe_file(source: Source) -> Path | None:
    """Return where the ``recipe.json`` of a model may lie: next to its file or folder."""
    if source.path is None:
        return None
    place = source.path
    if (cached := files.hub_place(place.absolute())) is not None:
        name, cache = cached
        place = cache / f"{catalog.HUB}{name.replace('/', '--')}"
    stem = place.stem if source.single_file else place.name
    return place.with_name(f"{stem}{SUFFIX}")


def _own_name(source: Source) -> str:
    """Return the last part of a model's name: the folders above it say nothing of it."""
    name = Path(source.id).name
    return Path(name).stem if source.single_file else name


def _by_weights(found: Layout) -> Recipe | None:
    """Tell a consistency model, which takes the guidance scale in as a number."""
    if found.configs["unet"].get("time_cond_proj_dim") is None:
        return None
    return replace(table.LCM, source="weights (the UNet takes the guidance scale)")


def _by_scheduler(found: Layout) -> Recipe | None:
    recipe = {"LCMScheduler": table.LCM_LORA, "TCDScheduler": table.TCD}.get(found.schedule.kind)
    return None if recipe is None else replace(recipe, source="scheduler_config.json")


def _by_schedule(found: Layout) -> Recipe | None:
    """Tell a model of velocity whose noise schedule ends in pure noise."""
    pure = found.schedule.numbers.get("rescale_betas_zero_snr")
    if not pure or found.schedule.prediction_type != "v_prediction":
        return None
    return replace(table.ZERO_SNR, source=found.schedule.prediction_from)


def _said(path: Path, below: Recipe) -> Recipe:
    content = files.read_json(path, once=True)
    if unknown := content.keys() - CHECKS.keys():
        raise ModelUnsuitable(
            f"{path} says {', '.join(sorted(unknown))}, which no recipe has. It may say "
            f"{', '.join(CHECKS)}."
        )
    for key, value in content.items():
        right, words = CHECKS[key]
        if not right(value):
            raise ModelUnsuitable(f"{path}: {key} must be {words}, and is {value!r}.")
    if content.get("sampler") in ALIASES:
        meant, its_own = ALIASES[content["sampler"]]
        content = {"schedule": its_own, **content, "sampler": meant}
    sampler = content.get("sampler", below.sampler)
    schedule = content.get("schedule")
    if sampler and schedule and fitting(schedule, sampler) != schedule:
        raise ModelUnsuitable(
            f"{path}: the sampler {sampler} cannot follow the schedule {schedule}."
        )
    if "sampler" in content:  # What it follows is part of the choice.
        below = replace(below, schedule=None, eta=None)
    stated = {"name": path.name.removesuffix(SUFFIX)[:LONGEST_NAME], **content}
    guessed = below.guessed and not below.values.keys() <= content.keys()
    return replace(below, **stated, source=path.name, guessed=guessed, stated=tuple(content))
