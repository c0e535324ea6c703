"""The whole service around the fake engine, for a browser: it starts in a second.

``python -m tests.support.page.fake_service serve``. STEP_SECONDS is its pace; a prompt with the
word ``fails`` fails.
"""

import os
import sys

from service.__main__ import main
from service.config.table import Config
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.engine.process import parent
from tests.support.simulation.fake_engine import FakeEngine


class PacedEngine(FakeEngine):
    """The fake at a pace at which a person can look."""

    def __init__(self, config: Config) -> None:
        del config
        super().__init__(step_seconds=float(os.environ["STEP_SECONDS"]))

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join, or fail, as its prompt says."""
        super().generate(job_id, request, epoch, inputs)
        if "fails" in request.prompt:
            self._fail((job_id,), "generation_failed", "The model returned no numbers.")


if __name__ == "__main__":
    vars(parent).update(ProcessEngine=PacedEngine)
    sys.exit(main())
