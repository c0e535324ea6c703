"""Links to kept images: made for ``response_format=url``, and opened by whoever has them."""

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from service.errors import (
    JobExpired,
    JobsOff,
    LinkRefused,
    NotFound,
    Overloaded,
    ResultDamaged,
    StorageUnavailable,
    ValidationFailed,
)
from service.http.middleware import auth
from service.http.openai.asking import Asked
from service.http.prefix import prefixed
from service.http.schema.decorators import docs
from service.http.server.writing import BODY
from service.http.state import CONFIG, CONNECTIONS, JOBS, LINKS, SENDING
from service.http.values import only
from service.images.encode import MEDIA_TYPES, converted
from service.jobs.store.stored import StoredJob
from service.system.executors import CONVERSIONS

PATH: Final = "/v1/images/{id}/{name}"
NAME: Final = re.compile(
    rf"([0-9]{{1,3}})(?:-([0-9]{{1,3}}))?\.({'|'.join(MEDIA_TYPES)})", re.ASCII
)
"""Place among the images, quality where it was asked for, and format: ``0-80.webp``."""

WHOLE: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
PROTO: Final = "X-Forwarded-Proto"
SCHEMES: Final = ("http", "https")
PARAMETERS: Final = (
    {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}},
    {"in": "path", "name": "name", "required": True, "schema": {"type": "string"}},
    {"in": "query", "name": "expires", "required": True, "schema": {"type": "integer"}},
    {"in": "query", "name": "signature", "required": True, "schema": {"type": "string"}},
)


def links(request: web.Request, done: StoredJob, asked: Asked) -> Iterator[str]:
    """Return a link to each image of a job, which works without a key until it expires."""
    expires = int(time.time() + request.app[CONFIG].image_url_seconds)
    form = asked.form
    quality = "" if form.quality is None else f"-{form.quality}"
    for index in range(done.request.num_images):
        name = f"{index}{quality}.{asked.output_format}"
        signature = request.app[LINKS].signature(f"{done.id}/{name}", expires)
        path = prefixed(request, PATH.format(id=done.id, name=name))
        yield f"{_origin(request)}{path}?expires={expires}&signature={signature}"


def _origin(request: web.Request) -> str:
    """Return scheme and host as the client wrote them; a trusted proxy in front may speak TLS."""
    scheme = request.scheme
    if request.app[CONNECTIONS].proxied(request.remote or ""):
        said = request.headers.get(PROTO, "").strip().lower()
        scheme = said if said in SCHEMES else scheme
    return f"{scheme}://{request.host}"


@docs(
    summary="Return an image by a link of `response_format=url`.",
    produces=list(MEDIA_TYPES.values()),
    parameters=[*PARAMETERS],
    errors=(
        *(ValidationFailed, LinkRefused, NotFound, JobExpired, StorageUnavailable),
        *(ResultDamaged, Overloaded, JobsOff),
    ),
)
async def get_file(request: web.Request) -> web.Response:
    """Answer with the image of a link that is right and not over."""
    job_id, name = request.match_info["id"], request.match_info["name"]
    expires, match = only(request.query, "expires", ""), NAME.fullmatch(name)
    signature = only(request.query, "signature", "")
    known = match is not None and WHOLE.fullmatch(expires) is not None
    if match is None or not known or not _opens(request, f"{job_id}/{name}", expires, signature):
        raise LinkRefused("The link is wrong, or its time is over; ask for the image again.")
    media_type = MEDIA_TYPES[match[3]]
    quality = int(match[2]) if match[2] else None
    sending, key = request.app[SENDING], (job_id, name)
    if (body := sending.get(key)) is None:
        reader = auth.client_of(request)
        image = await request.app[JOBS].kept_image(job_id, int(match[1]), reader)
        bare = request.app[CONFIG].bare_images
        convert = partial(converted, image.data, media_type, quality, bare=bare)
        body = sending.keep(key, await CONVERSIONS.run_for(reader, convert))
    # Who has the link may also show the image in a page of another origin.
    headers = {
        hdrs.CACHE_CONTROL: "private, no-store",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    answer = web.Response(body=body.content, content_type=media_type, headers=headers)
    answer[BODY] = body
    return answer


def _opens(request: web.Request, name: str, expires: str, signature: str) -> bool:
    return request.app[LINKS].opens(name, int(expires), signature)
