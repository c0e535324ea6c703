"""The command that measures streams of the OpenAI API."""

import argparse

from aiohttp.test_utils import TestServer

from scripts.benchmark import streams
from service.app import create_app
from service.config.table import Config
from tests.support.simulation.fake_engine import FakeEngine


async def test_it_measures_partial_images_next_to_clients_that_do_not_read(capsys):
    """Three tables; each request has its partial images and its finished one."""
    app = create_app(Config(data_dir=""), FakeEngine(step_seconds=0.02))
    async with TestServer(app) as server:
        options = argparse.Namespace(
            url=f"http://127.0.0.1:{server.port}", size="256x256", steps=8, runs=2, idle=3
        )
        await streams.main(options)
    printed = capsys.readouterr().out
    titles = ("Whole answers", "Streams", "Streams next to 3 that nobody reads")
    parts = [printed.index(f"{title}\n\n") for title in titles]
    assert parts == sorted(parts)
    for name in ("the whole answer", "partial image 1", "the finished image"):
        assert name in printed
