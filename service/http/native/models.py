"""``GET /models``: the models, and what requests to each may say."""

from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from service.core.limits import RequestLimits
from service.core.model import ModelInfo
from service.core.sampler import Sampler
from service.core.spec import FIELDS
from service.http.schema.answers import ModelList
from service.http.schema.decorators import docs, response_schema
from service.http.state import DISPATCHER, MODELS
from service.jobs.dispatch.dispatcher import Dispatcher
from service.models.defaults.known import Known
from service.models.served.catalog import DEFAULT, Served

STATES: Final = ("loaded", "loading", "parked", "on_disk", "on_hub")
"""Of a model that can be used, the nearest to its use first."""


@docs(
    summary="List the models that requests can name, with the limits and defaults of each.",
    description=(
        "Requests that name no model get the one with `default`. A model that is not `loaded` is "
        "loaded when a request names it, which takes the request so much longer."
    ),
)
@response_schema(ModelList(), 200, description="The models.")
async def list_models(request: web.Request) -> web.Response:
    """Answer with the models of the settings."""
    models, dispatcher = request.app[MODELS], request.app[DISPATCHER]
    listed = [_listed(models.key(each.id), each, dispatcher) for each in models.entries]
    return web.json_response({"models": listed})


def _listed(key: str, model: Served, dispatcher: Dispatcher) -> dict[str, Any]:
    slot = dispatcher.slot_of(key)
    info = slot.info(key)
    failure = slot.engine.failure if key == DEFAULT and slot.failed else ""
    problem = failure or dispatcher.admission.problem(key)
    known = info or model.known
    live = [each for each in dispatcher.slots if not each.closed] or [slot]
    return {
        "id": model.id,
        "default": key == DEFAULT,
        "state": "failed" if problem else best(each.state_of(key, model) for each in live),
        "engines": [each.name for each in live if key in each.residency.loaded],
        "problem": problem or None,
        "family": known.family or None,
        "recipe": recipe_of(known),
        "warnings": known.recipe.warnings,
        "inpainting": known.inpainting,
        "vae": "" if info is None else info.vae,
        "version": None if info is None else info.version,
        "licence": model.licence or None,
        "size_bytes": model.size,
        **asked(slot.limits(key)),
        "samplers": samplers(known),
    }


def best(states: Iterable[str]) -> str:
    """Return the state of a model, by those in all engines: the nearest to its use."""
    return min(states, key=STATES.index)


def samplers(model: Known | ModelInfo) -> list[dict[str, Any]]:
    """Return the samplers that a model may be drawn with, and what each of them can follow.

    Before a model is loaded its files tell the schedules alone.
    """
    ruled_out = model.samplers if isinstance(model, ModelInfo) else {}
    return [
        {
            "name": each.value,
            "label": each.infotext,
            "schedules": [one.value for one in each.schedules if one in model.schedules],
        }
        for each in Sampler
        if ruled_out.get(each, True)  # One that is left out can take any number of steps.
    ]


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
        "defaults": {
            each.name: each.default for each in declared if not each.required and not each.is_object
        },
    }
