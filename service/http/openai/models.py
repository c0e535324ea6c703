"""``GET /v1/models``: the models that requests can name."""

from typing import Any

from aiohttp import web

from service.errors import ModelNotFound
from service.http.openai.asking import model_of
from service.http.openai.schema import OpenAIModel, OpenAIModelList
from service.http.schema.decorators import docs, response_schema
from service.http.state import MODELS
from service.models.served.catalog import Served

ID = {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}}


@docs(summary="List the models, as OpenAI's API does.")
@response_schema(OpenAIModelList(), 200, description="The models.")
async def list_models(request: web.Request) -> web.Response:
    """Answer with the models that can be used, the default one first."""
    models = request.app[MODELS]
    usable = [each for each in models.entries if each is models.default or not each.problem]
    return web.json_response({"object": "list", "data": [_listed(each) for each in usable]})


@docs(summary="Return a model, as OpenAI's API does.", parameters=[ID], errors=(ModelNotFound,))
@response_schema(OpenAIModel(), 200, description="The model.")
async def get_model(request: web.Request) -> web.Response:
    """Answer with the model that a request of this name would get."""
    models = request.app[MODELS]
    key = models.find(model_of(request.match_info["id"], models))
    return web.json_response(_listed(models[key]))


def _listed(model: Served) -> dict[str, Any]:
    organisation, slash, _ = model.id.rpartition("/")
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": organisation if slash else "sd-api",
    }
