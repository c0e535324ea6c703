"""What is known of a model before it is loaded: from its small files, or from its name."""

from dataclasses import dataclass, replace
from typing import Final

import structlog

from service.config.limits import limits_of
from service.config.table import Config
from service.core.limits import CLIP_LAYERS, SD, SD_2_V, SDXL, Sizes
from service.core.recipe import NO_RECIPE, Recipe
from service.core.sampler import Schedule
from service.errors import ModelUnsuitable, ServiceError
from service.models import catalog, layout
from service.models.adapters.catalog import FAMILIES
from service.models.adapters.header import WIDTHS
from service.models.defaults import recipes, table
from service.models.defaults.aligned_steps import aligned
from service.models.layout import Layout
from service.models.source import Source, name_of

log = structlog.get_logger(__name__)

SD_2_WIDTH: Final = 1024
"""Width of the text embeddings of Stable Diffusion 2.x; those of 1.x have 768."""

SD_2_LAYERS: Final = 23
"""Layers of the text encoder of Stable Diffusion 2.x, which leaves the 24th out."""

DEMO_LAYERS: Final = 3
DEMO_SCHEDULES: Final = tuple(each for each in Schedule if each != Schedule.ALIGN_YOUR_STEPS)

SETTINGS: Final = {"steps": ("MAX_STEPS", "the sampler"), "size": ("MIN_SIZE", "MAX_SIZE")}
"""What bounds the values of a recipe."""

NAMES: Final = (
    ("xl", "sdxl", SDXL, CLIP_LAYERS - 1),
    ("stable-diffusion-2-1-base", "sd", SD, SD_2_LAYERS),
    ("stable-diffusion-2-inpainting", "sd", SD, SD_2_LAYERS),
    ("stable-diffusion-2-base", "sd", SD, SD_2_LAYERS),
    ("stable-diffusion-2", "sd", SD_2_V, SD_2_LAYERS),
)
"""Parts of the names of models on the hub, in lower case, with what they have in common."""

INPAINTING: Final = "inpaint"
"""Part of the names of the hub's inpainting models."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model that need not be loaded, nor even be here."""

    model_id: str = catalog.DEMO_ID
    family: str = "sd"
    """Empty for a model that cannot be read."""
    adapters: str = ""
    """``sd1``, ``sd2`` or ``sdxl``: what its adapters are made for; empty where nothing tells."""
    sizes: Sizes = SD
    recipe: Recipe = NO_RECIPE
    max_clip_skip: int = CLIP_LAYERS
    schedules: tuple[Schedule, ...] = tuple(Schedule)
    """Noise schedules that exist for it, as far as is known."""
    inpainting: bool = False
    """Whether its UNet takes a mask and a masked image, too."""


UNKNOWN: Final = Known()


def look(config: Config) -> Known:
    """Return what the model of the settings is; one that nothing tells of counts as SD 1.x.

    The engine tells again once it has loaded the model: a model on the hub that is not here yet
    is known by its name alone, which the log says.
    """
    try:
        return look_at(catalog.resolve(config.model_id, config.model_cache_dir), config)
    except (ServiceError, OSError):
        return unreadable(name_of(config.model_id))  # Loading it says what is wrong.


def unreadable(model_id: str) -> Known:
    """Return what is known of a model whose files are damaged, or of another kind."""
    return Known(model_id=model_id, family="")


def look_at(source: Source, config: Config) -> Known:
    """Return what a model is.

    Raises:
        ServiceError: it cannot be loaded, with the cure.
        OSError: its files cannot be read.

    """
    if source.demo:
        return Known(recipe=recipes.DEMO, max_clip_skip=DEMO_LAYERS, schedules=DEMO_SCHEDULES)
    if source.path is None:
        return _by_name(source.id, config)
    found = layout.read(source, config.model_cache_dir, prediction_type=config.prediction_type)
    return Known(
        model_id=source.name,
        family=found.family,
        adapters=adapters_of(found),
        sizes=sizes_of(found),
        recipe=recipe_of(source, found, config),
        max_clip_skip=max_clip_skip_of(found),
        schedules=schedules_of(found),
        inpainting=found.inpainting,
    )


def adapters_of(found: Layout) -> str:
    """Return what the adapters for a model are made for; empty where its width is of no family."""
    width = found.configs["unet"].get("cross_attention_dim")  # Of some networks it is a list.
    family = WIDTHS.get(width, "") if isinstance(width, int) else ""
    return family if FAMILIES.get(family) == found.family else ""


def schedules_of(found: Layout) -> tuple[Schedule, ...]:
    """Return the noise schedules that exist for a model."""
    return tuple(each for each in Schedule if aligned(found) or each != Schedule.ALIGN_YOUR_STEPS)


def recipe_of(source: Source, found: Layout, config: Config) -> Recipe:
    """Return the recipe of a model that is here, with what the limits of requests cut from it.

    Raises:
        ModelUnsuitable: its ``recipe.json`` says what it cannot, or what no request may have.
        ModelError: that file is damaged.

    """
    recipe = _limited(recipes.recipe_of(source, found), sizes_of(found), config)
    if recipe.schedule and recipe.schedule not in (there := schedules_of(found)):
        raise ModelUnsuitable(
            f"{recipes.recipe_file(source)}: the schedule {recipe.schedule} does not exist for "
            f"this model; use {', '.join(there)}."
        )
    for name, held in recipe.cut:
        if name in recipe.stated:
            settings = " or ".join(SETTINGS[name])
            raise ModelUnsuitable(
                f"{recipes.recipe_file(source)}: {name} is {recipe.values[name]}; the limit of "
                f"requests to this model is {held}. Write that, or change {settings}."
            )
    return recipe


def _limited(recipe: Recipe, sizes: Sizes, config: Config) -> Recipe:
    """Return the recipe with what the limits cut; a default of the settings cuts nothing."""
    limits = limits_of(config, sizes, recipe)
    held = {}
    if config.default_steps is None:
        held["steps"] = limits.default_steps
    if config.default_size is None:
        held["size"] = limits.default_size
    wanted = recipe.values
    cut = ((name, most) for name, most in held.items() if wanted.get(name, most) != most)
    return replace(recipe, cut=tuple(cut))


def sizes_of(found: Layout) -> Sizes:
    """Return the sizes that suit a model, by its parts and its noise schedule."""
    if found.family == "sdxl":
        return SDXL
    width = found.configs["unet"].get("cross_attention_dim")
    velocity = found.schedule.prediction_type == "v_prediction"
    return SD_2_V if velocity and width == SD_2_WIDTH else SD


def max_clip_skip_of(found: Layout) -> int:
    """Return the layers that can guide images: those of the encoder that has fewer.

    XL reads the last layer but one, and counts from there.
    """
    encoders = [found.configs.get(f"text_encoder{end}") for end in ("", "_2")]
    layers = [each.get("num_hidden_layers", CLIP_LAYERS) for each in encoders if each is not None]
    fewest: int = min(layers, default=CLIP_LAYERS)
    return max(fewest - (found.family == "sdxl"), 1)


def _by_name(model_id: str, config: Config) -> Known:
    recipe = table.by_id(model_id) or NO_RECIPE
    inpainting = INPAINTING in model_id.lower()
    for part, family, sizes, layers in NAMES:
        if part in model_id.lower():
            log.warning("model_family_guessed", model_id=model_id, family=family, by=part)
            return Known(
                model_id=model_id,
                family=family,
                sizes=sizes,
                recipe=_limited(recipe, sizes, config),
                max_clip_skip=layers,
                inpainting=inpainting,
            )
    recipe = _limited(recipe, SD, config)
    return Known(model_id=model_id, recipe=recipe, inpainting=inpainting)
