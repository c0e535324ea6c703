"""The light service, in which one thread hangs as it would in a disk that does not answer.

LIGHT_HANGS names which: ``keys`` the one that follows the file of keys, ``store`` that of the
job store at its end, ``loop`` the event loop, from the first ``GET /health/live`` on.
"""

import functools
import os
import runpy
import time
from collections.abc import Callable
from typing import Any, NoReturn

import structlog
from aiohttp import web

from service.access.keyring import Keyring
from service.http.middleware import auth
from service.http.native import health
from service.jobs.store.database import Database


def hang(*_arguments: Any, **_more: Any) -> NoReturn:
    """Wait for a disk that is gone."""
    while True:
        time.sleep(3600)


@functools.wraps(health.live)
async def hanging(_request: web.Request) -> web.Response:
    """Hold up the event loop."""
    structlog.get_logger().info("hangs")
    hang()


PLACES: dict[str, Callable[[], None]] = {
    "keys": lambda: setattr(Keyring, "changed", hang),
    "store": lambda: setattr(Database, "_close", hang),
    "loop": lambda: setattr(health, "live", hanging),
}

if __name__ == "__main__":
    vars(auth)["SILENT_SECONDS"] = 0.01
    PLACES[os.environ["LIGHT_HANGS"]]()
    runpy.run_module("tests.disasters.light", run_name="__main__")
