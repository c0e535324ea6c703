"""The service with ``ENGINE=ray`` whose hosts run an engine without a model."""

import os
import sys
from functools import partial

from service.__main__ import main as service
from service.engine.ray import source
from tests.support.fake_worker import JOB_SECONDS, LOAD_SECONDS, FakeWorker

WORKER = FakeWorker(
    job_seconds=float(os.environ.get(JOB_SECONDS, "0.2")),
    load_seconds=float(os.environ.get(LOAD_SECONDS, "0")),
)
"""What the hosts run, by the environment of their node."""

NAME = "tests.support.ray.fake_service:WORKER"


def main() -> int:
    """Run the service."""
    vars(source)["RaySource"] = partial(source.RaySource, worker=NAME)
    return service()


if __name__ == "__main__":
    sys.exit(main())
