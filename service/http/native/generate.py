"""``POST /generate``: from a checked request to the bytes of its answer."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.core.limits import RequestLimits
from service.core.spec import TEXTS
from service.errors import (
    Cancelled,
    EngineCrashed,
    GenerationFailed,
    IdempotencyConflict,
    ModelNotFound,
    NotAcceptable,
    Overloaded,
    ServiceError,
    ValidationFailed,
)
from service.http.accept import answered_at_once, preferred
from service.http.finished import Form, generated
from service.http.native.jobs import REFUSALS, accepted
from service.http.schema.decorators import docs, request_schema, response_schema
from service.http.schema.generated import Generated
from service.http.schema.orders import MODELS, generate_schema
from service.http.state import CONFIG, ORDER
from service.http.submission import JOB_ID, PARAMETER, REPLAYED, key_of
from service.http.uploads import taking
from service.images.encode import MEDIA_TYPES, json_body
from service.jobs.durable.live_job import Durability

JSON: Final = "application/json"
PNG: Final = MEDIA_TYPES["png"]
OFFERED: Final = (JSON, *MEDIA_TYPES.values())


@lru_cache(maxsize=MODELS)
def generate_handler(limits: RequestLimits, longest: float) -> Handler:
    """Build the handler; a request may take ``longest`` seconds at most."""

    @docs(
        summary="Make images from a prompt.",
        description=(
            "The answer comes when the image is finished. With `Accept: image/png`, "
            "`image/webp` or `image/jpeg` it is the file itself, with the metadata in the header "
            "`X-Metadata` and in the file, but with IMAGE_METADATA=none; several images come as "
            "JSON, if `Accept` allows it. "
            "A client that closes the connection frees the GPU within one denoising step. "
            "With an `Idempotency-Key` the same request sent again joins the first one or gets "
            "its answer; if the first one ended without images, it runs again. "
            "With `Prefer: respond-async` it works like `POST /jobs` and accepts the same fields."
        ),
        produces=list(OFFERED),
        parameters=[PARAMETER],
        errors=(
            *(ValidationFailed, ModelNotFound, NotAcceptable),
            *(IdempotencyConflict, Cancelled),
            *(*taking.REFUSALS, *REFUSALS),
            *(EngineCrashed, GenerationFailed, Overloaded, ServiceError),
        ),
    )
    @request_schema(
        generate_schema(limits, longest),
        put_into=ORDER,
        required=True,
        example={"prompt": "a lighthouse at dusk", "seed": 42},
    )
    @response_schema(Generated(), 200, description="The finished images.")
    async def generate(request: web.Request) -> web.Response:
        media_type = preferred(request, OFFERED)
        generation = request[ORDER].generation
        if answered_at_once(request):
            answer = await accepted(request, request[ORDER])
            answer.headers["Preference-Applied"] = "respond-async"
            return answer
        if generation.num_images > 1:
            media_type = _of_several(request, media_type)
        return await _answer(request, media_type)

    return generate


def _of_several(request: web.Request, media_type: str) -> str:
    """Return JSON, if the client takes it: a file holds one image."""
    try:
        return preferred(request, (JSON,))
    except NotAcceptable:
        raise ValidationFailed(
            {"num_images": [f"must be 1 for {media_type}; accept {JSON} to get more"]}
        ) from None


async def _answer(request: web.Request, media_type: str) -> web.Response:
    durability = Durability.NONE if key_of(request) is None else Durability.KEYED
    form = Form(media_type=PNG if media_type == JSON else media_type, whole=media_type != JSON)
    made = await generated(request, durability, form, json_body if media_type == JSON else _first)
    answer = web.Response(body=made.built, content_type=media_type)
    answer.headers["Vary"] = "Accept"
    answer.headers[JOB_ID] = made.handle.stored.id
    if made.handle.replayed:
        answer.headers[REPLAYED] = "true"
    if media_type != JSON and not request.app[CONFIG].bare_images:
        # Two prompts may take 12 kB as header; proxies and clients end at 8.
        short = {k: v for k, v in made.metadata.items() if k not in TEXTS}
        answer.headers["X-Metadata"] = json.dumps(short)
    return answer


def _first(files: list[bytes], _: Mapping[str, Any]) -> bytes:
    return files[0]
