"""Images of a request, checked and held for its job."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web

from service.core.inputs import InputImage
from service.errors import (
    InputLost,
    JobExpired,
    JobsOff,
    NotFound,
    ResultDamaged,
    TooManyUploads,
    UploadsFull,
    ValidationFailed,
)
from service.http.middleware.auth import caller_of
from service.http.schema.fields import REPEATED
from service.http.state import CALLER, CONFIG, INPUTS, JOBS
from service.http.uploads.base64_text import decoded
from service.http.uploads.sent import HELD, Held, Sent
from service.images.decode import Inspected, inspected
from service.jobs.inputs.base import NAMES, InputStore, Upload
from service.jobs.job import JobState
from service.system.executors import UPLOADS
from service.system.malloc import trim

REFUSALS: Final = (TooManyUploads, UploadsFull, InputLost, NotFound, JobExpired, ResultDamaged)
"""What the routes that take images answer, too."""

FORMS: Final = 'must be an image in base64, or a finished job as {"job": id, "index": 0}'
MANY_PIXELS: Final = 2**21
JOB_FIELDS: Final = frozenset({"job", "index"})


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An image of a request, whole and checked."""

    upload: Upload
    about: Inspected

    @property
    def reference(self) -> InputImage:
        """What stands for it in a request."""
        return InputImage(
            digest=self.upload.digest, width=self.about.width, height=self.about.height
        )


TAKEN: Final = web.RequestKey("taken", dict[str, Taken])
"""The images of a request by their names (``inputs.base.NAMES``)."""


async def taken(request: web.Request, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request with a reference in place of each image.

    An image is a text in base64, ``Sent``, or ``{"job": id, "index": 0}``. ``submit`` gives
    the job what is in ``request[TAKEN]``.

    Raises:
        ValidationFailed: names each image that is none.
        NotFound, JobExpired, JobsOff: the caller has no such job, not any more, or none is kept.
        ServiceError: as ``InputStore.receive`` says.

    """
    found, wrong = dict(values), dict[str, list[str]]()
    for name in NAMES:
        value = found.get(name)
        if value is None or value is REPEATED:
            continue
        try:
            took = await taken_alone(request, value)
        except ValueError as error:
            wrong[name] = [str(error)]
        except (NotFound, JobExpired) as error:
            raise type(error)(f"{name}: {error.detail} Name a finished job of yours.") from error
        except JobsOff as error:
            raise JobsOff(f"{name}: no jobs are kept without DATA_DIR; send the image.") from error
        else:
            request.setdefault(TAKEN, {})[name] = took
            found[name] = took.reference
    if wrong:
        raise ValidationFailed(wrong)
    return found


async def taken_alone(request: web.Request, value: Any) -> Taken:
    """Return an image of a request, which ``submit`` does not give to a job.

    Raises:
        ValueError: it is none.
        ServiceError: as ``taken`` says.

    """
    match value:
        case Sent():
            pieces = value.pieces
        case str():
            pieces = partial(decoded, value.encode("utf-8", "replace"))
        case {"job": str(), **rest} if rest.keys() <= JOB_FIELDS:
            data = await _of_job(request, value["job"], value.get("index", 0))
            pieces = partial(iter, (data,))
        case _:
            raise ValueError(FORMS)
    config, inputs, held = request.app[CONFIG], request.app[INPUTS], request[HELD]
    take = partial(
        _kept,
        *(pieces, inputs, caller_of(request), held),
        most_bytes=config.max_image_bytes,
        most_pixels=config.max_image_pixels,
    )
    return await UPLOADS.run_for(caller_of(request), take)


def _kept(
    pieces: Callable[[], Iterable[bytes]],
    inputs: InputStore,
    owner: str,
    held: Held,
    *,
    most_bytes: int,
    most_pixels: int,
) -> Taken:
    size = 0
    with inputs.receive(owner) as receiver:
        for piece in pieces():
            size += len(piece)
            if size > most_bytes:
                raise ValueError(f"must have at most {most_bytes} bytes (MAX_IMAGE_BYTES)")
            receiver.write(piece)
        upload = held.add(receiver.done())
    about = inspected(upload.read(), most_pixels)
    if about.width * about.height >= MANY_PIXELS:
        trim()  # The next image may need the same memory in other pieces.
    return Taken(upload=upload, about=about)


async def _of_job(request: web.Request, job_id: str, index: Any) -> bytes:
    """Return an image of a finished job of the caller."""
    jobs = request.app[JOBS]
    stored, _ = await jobs.get(job_id, request[CALLER].name)
    if stored.state is not JobState.SUCCEEDED:
        raise NotFound(f"The job {job_id} has no images; it is {stored.state.value}.")
    most = stored.request.num_images - 1
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= most:
        raise ValueError(f"must have an index from 0 to {most}")
    return (await jobs.image(stored, index)).data
