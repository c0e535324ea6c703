"""``GET /models/adapters``: the LoRA files and embeddings that requests can name."""

import time
from typing import Any, Final

from aiohttp import web
from marshmallow import Schema, fields

from service.http.schema.answers import described
from service.http.schema.decorators import docs, response_schema
from service.http.state import ADAPTERS
from service.models.adapters.catalog import AdapterCatalog, Entry
from service.system.executors import FILES

HASH_SECONDS: Final = 5.0
"""Time that one answer takes for hashes that are not known yet."""


class AdapterAnswer(Schema):
    """One adapter."""

    name = described(fields.String, "Name to use in `adapters`.", "ink")
    kind = described(
        fields.String,
        "`lora` is named in `adapters`; `embedding` is named in the prompts, as `<name>`.",
        "lora",
        enum=["lora", "embedding"],
    )
    family = described(
        fields.String,
        "Family of models that it is made for: `sd1`, `sd2` or `sdxl`; null where its file does "
        "not tell.",
        "sd1",
        allow_none=True,
    )
    trigger_words = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "Words for the prompt that its file names, the commonest first.",
            "examples": [["ink drawing"]],
        },
    )
    size_bytes = described(fields.Integer, "Size of the file.", 303104)
    sha256 = described(
        fields.String, "SHA-256 of the file; null until it has been read.", "9f86…", allow_none=True
    )
    short_hash = described(
        fields.String,
        "Hash that AUTOMATIC1111 writes into images; null until the file has been read.",
        "0cf9180a764a",
        allow_none=True,
    )
    problem = described(
        fields.String, "Why requests cannot use it; null if they can.", None, allow_none=True
    )


class AdapterPage(Schema):
    """All adapters."""

    adapters = fields.List(
        fields.Nested(AdapterAnswer),
        required=True,
        metadata={"description": "The adapters by name."},
    )


@docs(
    summary="List the adapters (LoRA files) and embeddings that requests can use.",
    description=(
        "The files in `LORA_DIR` and its folder `embeddings`, read again at every call. Hashes "
        "take time: those that are not known after five seconds are null, and are known by a later "
        "call."
    ),
)
@response_schema(AdapterPage(), 200, description="The adapters.")
async def list_adapters(request: web.Request) -> web.Response:
    """Answer with every adapter of the catalogue."""
    return web.json_response({"adapters": await FILES.run(_listed, request.app[ADAPTERS])})


def _listed(catalog: AdapterCatalog) -> list[dict[str, Any]]:
    until = time.monotonic() + HASH_SECONDS
    return [_described(catalog, entry, until) for entry in catalog.entries()]


def _described(catalog: AdapterCatalog, entry: Entry, until: float) -> dict[str, Any]:
    hashes = catalog.hashes(entry, until) if entry.header else None
    return {
        "name": entry.name,
        "kind": entry.kind.value,
        "family": (entry.header.family if entry.header else "") or None,
        "trigger_words": list(entry.header.trigger_words) if entry.header else [],
        "size_bytes": entry.stamp.size,
        "sha256": hashes and hashes.sha256,
        "short_hash": hashes and hashes.short,
        "problem": entry.problem or None,
    }
