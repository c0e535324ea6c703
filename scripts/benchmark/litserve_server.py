"""A LitServe server around the diffusers pipeline that batches requests.

    python -m scripts.benchmark.litserve_server --model demo --port 8002 --batch 3

LitServe collects up to ``--batch`` requests, or what came within a moment. Those of one size,
number of steps and guidance scale are one call of the pipeline, each with its own seed.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

import litserve
from fastapi import Request, Response
from PIL import Image

from scripts.benchmark.pipeline import Order, Pipeline, png

WINDOW: Final = 0.01
"""Seconds in which a batch is collected: more would only be added to a lone request."""


class Pictures(litserve.LitAPI):
    """What LitServe calls in its worker process."""

    def __init__(self, model_id: str, threads: int, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=WINDOW, api_path="/generate")
        self._model_id = model_id
        self._threads = threads

    def setup(self, device: str) -> None:
        """Load the model."""
        del device  # The loader chooses the same one.
        self._pipeline = Pipeline(self._model_id, self._threads)

    def decode_request(self, request: Request) -> Order:
        """Read a body; LitServe has parsed it already."""
        assert isinstance(request, Mapping)  # noqa: S101 - tells mypy what really comes
        return Order.parsed(request)

    def batch(self, inputs: Sequence[Order]) -> list[Order]:
        """Keep the orders as they are."""
        return list(inputs)

    def predict(self, x: list[Order] | Order) -> list[Image.Image]:
        """Make the pictures of a batch, in as few calls as their parameters allow."""
        orders = x if isinstance(x, list) else [x]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, order in enumerate(orders):
            alike = order.width, order.height, order.steps, order.guidance_scale
            groups.setdefault(alike, []).append(index)
        pictures: dict[int, Image.Image] = {}
        for indices in groups.values():
            drawn = self._pipeline.draw([orders[index] for index in indices])
            pictures.update(zip(indices, drawn, strict=True))
        return [pictures[index] for index in range(len(orders))]

    def unbatch(self, output: list[Image.Image]) -> list[Image.Image]:
        """Keep the pictures as they are."""
        return output

    def encode_response(self, output: list[Image.Image] | Image.Image) -> Response:
        """Pack a picture as a file."""
        picture = output[0] if isinstance(output, list) else output
        return Response(png(picture), media_type="image/png")


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=3)
    given = parser.parse_args()
    api = Pictures(given.model, given.threads, given.batch)
    server = litserve.LitServer(api, devices=1, timeout=False, fast_queue=True)
    server.run(host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
