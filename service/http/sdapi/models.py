"""Models by the titles that AUTOMATIC1111's clients show and send back."""

import re
from typing import Any, Final

from aiohttp import web

from service.http.state import DISPATCHER, HASHES, MODELS
from service.models.files import SUFFIX
from service.models.served.catalog import Served

SHORT: Final = 10
"""Hex digits of AUTOMATIC1111's short hash."""
HASHED: Final = re.compile(r"\s*\[[0-9a-f]{4,64}\]$")
"""How a title ends: with the short hash of the model."""


def title(request: web.Request, key: str) -> str:
    """Return the title of a model by its key: its name, and the hash once it is known."""
    name = request.app[MODELS][key].id
    known = request.app[HASHES].known(key)
    return f"{name} [{known[:SHORT]}]" if known else name


def key_of(request: web.Request, name: str) -> str:
    """Return the key of the model that a title, a name or a hash means.

    Raises:
        ModelNotFound: there is none.

    """
    models, hashes = request.app[MODELS], request.app[HASHES]
    asked = HASHED.sub("", name.strip())
    if not models.knows(asked) and len(asked) >= SHORT:
        for each in models.entries:
            if hashes.known(key := models.key(each.id)).startswith(asked.lower()):
                return key
    return models.find(asked)


def is_xl(request: web.Request, key: str) -> bool:
    """Return whether a model is of the family XL, as far as is known."""
    loaded = request.app[DISPATCHER].slot_of(key).info(key)
    return (loaded.family if loaded else request.app[MODELS][key].known.family) == "sdxl"


def listed(request: web.Request) -> list[dict[str, Any]]:
    """Return what ``/sd-models`` lists: the models that can be used, the default one first."""
    models, admission = request.app[MODELS], request.app[DISPATCHER].admission
    found = ((models.key(each.id), each) for each in models.entries)
    return [_listed(request, *each) for each in found if not admission.problem(each[0])]


def _listed(request: web.Request, key: str, model: Served) -> dict[str, Any]:
    known = request.app[HASHES].known(key)
    return {
        "title": title(request, key),
        "model_name": model.id.removesuffix(SUFFIX),
        "hash": known[:SHORT] or None,
        "sha256": known or None,
        "filename": model.id,  # The folders of this machine are nothing that a client has to know.
        "config": None,
    }
