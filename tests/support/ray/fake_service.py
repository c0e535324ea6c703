"""The service with ``ENGINE=ray`` whose hosts run an engine without a model."""

import os
import sys
from functools import partial

from service.__main__ import main as service
from service.engine.ray import source

WORKER = "tests.support.fake_worker:run"
"""What the hosts run, at the pace that the environment of their node says."""


def main() -> int:
    """Run the service."""
    vars(source)["RaySource"] = partial(source.RaySource, worker=WORKER)
    if seconds := os.environ.get("FAKE_UNREACHABLE_SECONDS"):
        vars(source)["UNREACHABLE_SECONDS"] = float(seconds)
    return service()


if __name__ == "__main__":
    sys.exit(main())
