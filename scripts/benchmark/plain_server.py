"""A plain server around the diffusers pipeline, as people write it: one image at a time.

    MODEL_ID=demo python -m scripts.benchmark.plain_server 8001

A lock lets one request after the other use the pipeline, in a thread, so that the event loop
stays free; the file is packed in another thread, while the next image is made.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from scripts.benchmark.pipeline import Pipeline, png


class Plain:
    """The handlers, and the pipeline that they share."""

    def __init__(self) -> None:
        self._pipeline = Pipeline()
        self._free = asyncio.Lock()
        # Always the same thread: torch keeps a pool of its own for each that calls it.
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def generate(self, request: web.Request) -> web.Response:
        """Answer with the image that is asked for."""
        body = await request.json()
        async with self._free:
            loop = asyncio.get_running_loop()
            (image,) = await loop.run_in_executor(self._thread, self._pipeline.draw, [body])
        return web.Response(body=await asyncio.to_thread(png, image), content_type="image/png")

    async def health(self, _request: web.Request) -> web.Response:
        """Answer when the model is loaded."""
        return web.Response(text="ok")


if __name__ == "__main__":
    plain = Plain()
    app = web.Application()
    app.add_routes([web.post("/generate", plain.generate), web.get("/health", plain.health)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
