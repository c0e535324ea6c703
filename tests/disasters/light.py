"""The whole service around an engine process without torch, for what must not take minutes.

It is the command line as users run it; only what the engine process runs is replaced, by the
child that LIGHT_ENTRY names. LIGHT_DELAYS are the seconds between restarts.
"""

import os
import sys

from service.__main__ import main
from service.config.table import Config
from service.engine.process import parent
from tests.unit.engine.process import children


class LightEngine(parent.ProcessEngine):
    """The supervisor as it is, over a child without torch."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, entry=getattr(children, os.environ["LIGHT_ENTRY"]))


if __name__ == "__main__":
    delays = os.environ["LIGHT_DELAYS"].split(",")
    vars(parent).update(
        ProcessEngine=LightEngine, RESTART_DELAYS=tuple(float(each) for each in delays)
    )
    sys.exit(main())
