"""What is known of a model before it is loaded: from its small files, or from its name."""

from dataclasses import dataclass
from typing import Final

import structlog

from service.config.table import Config
from service.core.limits import SD, SD_2_V, SDXL, Sizes
from service.core.recipe import NO_RECIPE, Recipe
from service.errors import ServiceError
from service.models import catalog, layout
from service.models.defaults import recipes, table
from service.models.layout import Layout

log = structlog.get_logger(__name__)

SD_2_WIDTH: Final = 1024
"""Width of the text embeddings of Stable Diffusion 2.x; those of 1.x have 768."""

NAMES: Final = (
    ("xl", "sdxl", SDXL),
    ("stable-diffusion-2-1-base", "sd", SD),
    ("stable-diffusion-2-base", "sd", SD),
    ("stable-diffusion-2", "sd", SD_2_V),
)
"""Parts of the names of models on the hub, in lower case, with what they have in common."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model that need not be loaded, nor even be here."""

    model_id: str = catalog.DEMO_ID
    family: str = "sd"
    sizes: Sizes = SD
    recipe: Recipe = NO_RECIPE


UNKNOWN: Final = Known()


def look(config: Config) -> Known:
    """Return what the model of the settings is; one that nothing tells of counts as SD 1.x.

    The engine tells again once it has loaded the model: a model on the hub that is not here yet
    is known by its name alone, which the log says.
    """
    try:
        source = catalog.resolve(config.model_id, config.model_cache_dir)
        if source.demo:
            return Known(recipe=recipes.DEMO)
        if source.path is not None:
            found = layout.read(
                source, config.model_cache_dir, prediction_type=config.prediction_type
            )
            return Known(
                model_id=source.id,
                family=found.family,
                sizes=sizes_of(found),
                recipe=recipes.recipe_of(source, found),
            )
    except (ServiceError, OSError):
        return Known(model_id=config.model_id)  # Loading it says what is wrong.
    return _by_name(source.id)


def sizes_of(found: Layout) -> Sizes:
    """Return the sizes that suit a model, by its parts and its noise schedule."""
    if found.family == "sdxl":
        return SDXL
    width = found.configs["unet"].get("cross_attention_dim")
    velocity = found.schedule.prediction_type == "v_prediction"
    return SD_2_V if velocity and width == SD_2_WIDTH else SD


def _by_name(model_id: str) -> Known:
    recipe = table.by_id(model_id) or NO_RECIPE
    for part, family, sizes in NAMES:
        if part in model_id.lower():
            log.warning("model_family_guessed", model_id=model_id, family=family, by=part)
            return Known(model_id=model_id, family=family, sizes=sizes, recipe=recipe)
    return Known(model_id=model_id, recipe=recipe)
