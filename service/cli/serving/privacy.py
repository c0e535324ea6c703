"""What other processes of the service's user, the engine first, may see of the service."""

import ctypes
import os
import sys
from typing import Final

import structlog

from service.config.table import Config

log = structlog.get_logger(__name__)

PR_SET_DUMPABLE: Final = 4
"""Of Linux's prctl.h."""


def close_memory(config: Config) -> None:
    """Let no process of the same user read the memory and environment of this one.

    The kernel keeps the environment that a program was started with, whatever it removes from
    it later, and shows it in ``/proc`` to all processes of its user; so, too, its memory.
    """
    if config.allow_debugger:
        log.warning("debugger_allowed", consequence="processes of this user can read all secrets")
    elif sys.platform != "linux" or ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("memory_not_closed", user=os.getuid(), cure="none but Linux can close it")
