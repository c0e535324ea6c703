"""Routes of the OpenAI API, a part of the table of routes."""

from collections.abc import Iterable
from functools import partial

from service.config.table import Config
from service.http.openai import edits, files, images, models
from service.http.openai.errors import OPENAI
from service.http.route import Access, Route
from service.http.uploads.receiving import body_bytes

row = partial(Route, api=OPENAI, tag="openai")
V1 = "/v1/images"


def rows(config: Config) -> Iterable[Route]:
    """Return the rows; bodies with images may be larger than those of other requests."""
    drawing = partial(row, "POST", counted=True)
    uploading = partial(drawing, body_bytes=body_bytes(config))
    return (
        drawing(f"{V1}/generations", images.generate, operation="createOpenAIImages"),
        uploading(f"{V1}/edits", edits.edit, operation="editOpenAIImages"),
        uploading(f"{V1}/variations", edits.vary, operation="varyOpenAIImages"),
        row("GET", files.PATH, files.get_file, access=Access.PUBLIC, operation="getOpenAIImage"),
        row("GET", "/v1/models", models.list_models, operation="listOpenAIModels"),
        row(
            "GET",
            "/v1/models/{id}",
            models.get_model,
            pattern="/v1/models/{id:.+}",
            operation="getOpenAIModel",
        ),
    )
