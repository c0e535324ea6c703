"""Routes of the OpenAI API, a part of the table of routes."""

from functools import partial
from typing import Final

from service.http.openai import files, images, models
from service.http.openai.errors import OPENAI
from service.http.route import Access, Route

row = partial(Route, api=OPENAI, tag="openai")

ROWS: Final = (
    row(
        "POST",
        "/v1/images/generations",
        images.generate,
        counted=True,
        operation="createOpenAIImages",
    ),
    row("POST", "/v1/images/edits", images.unsupported, operation="editOpenAIImages"),
    row("POST", "/v1/images/variations", images.unsupported, operation="varyOpenAIImages"),
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
