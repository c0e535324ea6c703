"""The recipe of an adapter that makes a model draw in few steps, by its name."""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from service.core.recipe import Recipe
from service.core.spec import GenerationSpec
from service.models.defaults import table

log = structlog.get_logger(__name__)


def recipe_of(names: Iterable[str]) -> tuple[str, Recipe] | None:
    """Return the first adapter that has a recipe, and the recipe; None where none has."""
    found = ((name, table.by_name(name)) for name in names)
    return next(((name, recipe) for name, recipe in found if recipe is not None), None)


def values_for(names: Iterable[str], given: Iterable[str], max_steps: int) -> dict[str, Any]:
    """Return what the recipe of an adapter says of the fields that were not given."""
    if (found := recipe_of(names)) is None:
        return {}
    name, recipe = found
    # The size is the model's, whatever is added to it.
    wanted = {key: value for key, value in recipe.values.items() if key not in {*given, "size"}}
    if wanted:
        log.warning("adapter_recipe_guessed", adapter=name, recipe=recipe.name, **wanted)
    if (steps := wanted.get("steps", 0)) > max_steps:
        wanted["steps"] = max_steps
        facts = {"value": "steps", "wanted": steps, "held": max_steps}
        log.warning("adapter_recipe_cut", adapter=name, recipe=recipe.name, **facts)
    return wanted


def facts(request: GenerationSpec, of_model: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """Return what the metadata say of recipes, where adapters may have one."""
    if (found := recipe_of(each.name for each in request.adapters)) is None:
        return dict(of_model)
    name, recipe = found
    guess = (
        f"The recipe {recipe.name} was guessed from the name of the adapter {name}. If the images "
        "are wrong, name steps, guidance_scale and sampler in the request."
    )
    said = [*of_model["warnings"], guess]
    if (recipe.steps or 0) > max_steps == request.steps:
        said.append(f"That recipe asks for {recipe.steps} steps, and MAX_STEPS allows {max_steps}.")
    return {**of_model, "recipe": recipe.name, "warnings": said}
