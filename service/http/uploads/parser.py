"""The parser of native requests: their body with its images, and the schema of their route."""

import json
import re
from typing import Any, Final, NoReturn

from aiohttp import web
from marshmallow import Schema, ValidationError
from webargs.aiohttpparser import AIOHTTPParser

from service.core.limits import RequestLimits
from service.core.spec import FIELDS
from service.errors import BodyTooLarge, ValidationFailed
from service.http.body import once
from service.http.compat.reading import number
from service.http.schema.fields import REPEATED
from service.http.schema.orders import LimitedSchema
from service.http.state import CONFIG, DISPATCHER, MODELS
from service.http.uploads.multipart import MEDIA_TYPE
from service.http.uploads.receiving import body
from service.http.uploads.sent import Sent
from service.http.uploads.taking import taken
from service.jobs.inputs.base import NAMES
from service.models.served.catalog import DEFAULT

PARSED: Final = web.RequestKey("parsed", dict[str, Any])
"""The fields of the body, which is read once."""


NO_FILE: Final = f"cannot be a file; files are {' and '.join(NAMES)}"
TEXTS: Final = frozenset({each.name for each in FIELDS if each.kind is str} | {"webhook"})
"""Fields whose values in a form are texts as they are; the others are written as in JSON."""
STRUCTURE: Final = re.compile(r"\s*(?:[{[]|(?:true|false|null)\s*$)")


class BodyParser(AIOHTTPParser):
    """The parser behind the ``request_schema`` decorators; each application has its own."""

    async def parse(self, argmap: Any, req: Any = None, **more: Any) -> Any:
        """Read the body with the schema of its route, with the limits of the model in it."""
        if isinstance(argmap, LimitedSchema):
            argmap = argmap.within(await self._limits(req, argmap)).of(req)
        return await super().parse(argmap, req, **more)

    async def _limits(self, req: web.Request, schema: Schema) -> RequestLimits:
        """Return the limits and defaults of the model that the body names."""
        req[PARSED] = body = await self.load_json(req, schema)
        named = body.get("model")
        key = req.app[MODELS].find(named if isinstance(named, str) else DEFAULT)
        return req.app[DISPATCHER].limits(key)

    async def load_json(self, req: web.Request, schema: Schema) -> Any:
        """Return the fields of the body; raises what ``body`` and ``taken`` raise."""
        if PARSED in req:
            return req[PARSED]
        found = await taken(req, _typed(await body(req), form=req.content_type == MEDIA_TYPE))
        left = {name: value for name, value in found.items() if isinstance(value, Sent)}
        if any(not value.base64 for value in left.values()):
            raise ValidationFailed({name: [NO_FILE] for name in left})
        if left.keys() & schema.fields.keys():  # The schema refuses the others by their names.
            most = req.app[CONFIG].max_body_bytes
            raise BodyTooLarge(
                f"The body must not be larger than {most} bytes (MAX_BODY_BYTES) without images."
            )
        return found

    def handle_error(
        self, error: ValidationError, req: web.Request, schema: Schema, **kwargs: Any
    ) -> NoReturn:
        """Raise our error; webargs wraps the messages in the place the data came from."""
        del req, schema, kwargs
        raise ValidationFailed(error.messages_dict["json"]) from error


def _typed(values: dict[str, Any], *, form: bool) -> dict[str, Any]:
    """Return the fields of a form as JSON would have them."""
    if not form:
        return values
    read = {name: _value(name, value) for name, value in values.items()}
    return {name: value for name, value in read.items() if value != "" or name in TEXTS}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return REPEATED
    if name in TEXTS or not isinstance(value, str):
        return value
    if not STRUCTURE.match(value):
        return number(value)
    try:
        return json.loads(value, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return value
