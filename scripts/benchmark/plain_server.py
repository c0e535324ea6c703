"""A plain server around the diffusers pipeline, as people write it: one picture at a time.

    python -m scripts.benchmark.plain_server --model demo --port 8001

A lock lets one request after the other use the pipeline, in a thread, so that the event loop
stays free; the file is packed in another thread, while the next picture is made.
"""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from scripts.benchmark.pipeline import Order, Pipeline, png


class Plain:
    """The handlers, and the pipeline that they share."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._free = asyncio.Lock()
        # Always the same thread: torch keeps a pool of its own for each that calls it.
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def generate(self, request: web.Request) -> web.Response:
        """Answer with the picture that is asked for."""
        order = Order.parsed(await request.json())
        async with self._free:
            loop = asyncio.get_running_loop()
            (picture,) = await loop.run_in_executor(self._thread, self._pipeline.draw, [order])
        return web.Response(body=await asyncio.to_thread(png, picture), content_type="image/png")

    async def health(self, request: web.Request) -> web.Response:
        """Answer when the model is loaded."""
        del request
        return web.Response(text="ok")


def main() -> None:
    """Load the model, then serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    plain = Plain(Pipeline(given.model, given.threads))
    app = web.Application()
    app.add_routes([web.post("/generate", plain.generate), web.get("/health", plain.health)])
    web.run_app(app, host="127.0.0.1", port=given.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
