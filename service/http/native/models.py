"""``GET /models``: the models, and what requests to each may say."""

from typing import Any

from aiohttp import web

from service.core.limits import RequestLimits
from service.core.model import ModelInfo
from service.core.spec import FIELDS
from service.http.schema.answers import ModelList
from service.http.schema.decorators import docs, response_schema
from service.http.state import DISPATCHER, MODELS
from service.models.defaults.known import Known


@docs(
    summary="List the models, and the limits and defaults of requests to each.",
    description="The model that a request gets is the one with `default`.",
)
@response_schema(ModelList(), 200, description="The models.")
async def list_models(request: web.Request) -> web.Response:
    """Answer with the model of the settings."""
    known, slot = request.app[MODELS].default.known, request.app[DISPATCHER].lead
    loaded = slot.engine.model
    return web.json_response(
        {
            "models": [
                {
                    "id": known.model_id if loaded is None else loaded.model_id,
                    "default": True,
                    "state": slot.engine.state.value,
                    "family": known.family if loaded is None else loaded.family,
                    "recipe": recipe_of(known if loaded is None else loaded),
                    "vae": "" if loaded is None else loaded.vae,
                    "version": None if loaded is None else loaded.version,
                    **asked(slot.limits()),
                }
            ]
        }
    )


def recipe_of(model: Known | ModelInfo) -> dict[str, Any] | None:
    """Return the recipe of a model, and where it comes from; None for none."""
    recipe = model.recipe
    if not recipe.name:
        return None
    return {
        "name": recipe.name,
        "source": recipe.source,
        "guessed": recipe.guessed,
        "values": recipe.values,
    }


def asked(limits: RequestLimits) -> dict[str, Any]:
    """Return the limits and the defaults of a request's fields, by their names."""
    declared = [each.within(limits) for each in FIELDS]
    return {
        "limits": {
            each.name: {
                "minimum": each.low,
                "maximum": each.high,
                **({"multiple_of": each.multiple} if each.multiple != 1 else {}),
            }
            for each in declared
            if each.low is not None
        },
        "defaults": {each.name: each.default for each in declared if not each.required},
    }
