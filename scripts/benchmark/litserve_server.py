"""A LitServe server around the diffusers pipeline that batches requests.

    MODEL_ID=demo MAX_CONCURRENT_REQUESTS=3 python -m scripts.benchmark.litserve_server 8002

LitServe collects up to MAX_CONCURRENT_REQUESTS requests, or what came within a moment. Those of
one size, number of steps and guidance scale are one call of the pipeline, each with its own seed.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import litserve
from fastapi import Request, Response
from PIL import Image

from scripts.benchmark.pipeline import Body, Pipeline, png
from service.config.loading import load

WINDOW: Final = 0.01
"""Seconds in which a batch is collected: more would only be added to a lone request."""

ALIKE: Final = ("width", "height", "steps", "guidance_scale")


class Images(litserve.LitAPI):
    """What LitServe calls in its worker process."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device  # The loader chooses the same one.
        self._pipeline = Pipeline()

    def decode_request(self, request: Request) -> Body:
        """Return a body, which LitServe has parsed already."""
        return cast("Body", request)

    def batch(self, inputs: Sequence[Body]) -> list[Body]:
        """Keep the bodies as they are."""
        return list(inputs)

    def predict(self, x: list[Body] | Body) -> list[Image.Image]:
        """Make the images of a batch, in as few calls as their parameters allow."""
        bodies = x if isinstance(x, list) else [x]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, body in enumerate(bodies):
            groups.setdefault(tuple(body[name] for name in ALIKE), []).append(index)
        images: dict[int, Image.Image] = {}
        for indices in groups.values():
            drawn = self._pipeline.draw([bodies[index] for index in indices])
            images.update(zip(indices, drawn, strict=True))
        return [images[index] for index in range(len(bodies))]

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        """Keep the images as they are."""
        return output

    def encode_response(self, output: list[Image.Image] | Image.Image) -> Response:
        """Pack an image as a file."""
        image = output[0] if isinstance(output, list) else output
        return Response(png(image), media_type="image/png")


if __name__ == "__main__":
    most = load(os.environ).max_concurrent_requests
    api = Images(max_batch_size=most, batch_timeout=WINDOW, api_path="/generate")
    litserve.LitServer(api, devices=1, timeout=False, fast_queue=True).run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
