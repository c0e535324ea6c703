"""The exit codes of every command, one for each kind of fault; docs/STARTUP.md explains them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from service import errors
from service.errors import ModelError, ServiceError, error_class


class Exit(IntEnum):
    """How a command ended; from 65 on by the names of sysexits.h, as far as one fits."""

    DONE = 0
    FAILED = 1
    SETTING = 2
    """A wrong setting or argument, which is also what argparse says."""
    MODEL_DAMAGED = 65  # EX_DATAERR
    MODEL_MISSING = 66  # EX_NOINPUT
    HUB_UNREACHABLE = 68  # EX_NOHOST
    NOT_INSTALLED = 69  # EX_UNAVAILABLE
    GPU_TOO_SMALL = 70
    GPU_MISSING = 71  # EX_OSERR
    TORCH_MISMATCH = 72  # EX_OSFILE
    FOLDER_UNUSABLE = 73  # EX_CANTCREAT
    DISK_FULL = 74  # EX_IOERR
    BUSY = 75  # EX_TEMPFAIL
    INTERRUPTED = 130
    """By Ctrl-C: 128 and the signal's number, as a shell says it."""


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.DONE: "done (health: ready)",
    Exit.FAILED: "failed (health: not ready)",
    Exit.SETTING: "a wrong setting or argument",
    Exit.MODEL_DAMAGED: "the model is damaged or of another kind",
    Exit.MODEL_MISSING: "there is no such model",
    Exit.HUB_UNREACHABLE: "the hub is out of reach",
    Exit.NOT_INSTALLED: "the engine's packages are not installed",
    Exit.GPU_TOO_SMALL: "the GPU is too small for the model",
    Exit.GPU_MISSING: "the GPU asked for is not there",
    Exit.TORCH_MISMATCH: "this torch does not fit the GPU or its driver",
    Exit.FOLDER_UNUSABLE: "a folder cannot be used",
    Exit.DISK_FULL: "the disk is full",
    Exit.BUSY: "the port, DATA_DIR, the model or the GPU's memory is taken",
    Exit.INTERRUPTED: "ended by Ctrl-C",
}

CODES: Final[Mapping[type[ServiceError], Exit]] = {
    errors.ConfigError: Exit.SETTING,
    errors.ValidationFailed: Exit.SETTING,
    errors.SamplerUnsuitable: Exit.SETTING,
    errors.AdapterUnsuitable: Exit.SETTING,
    errors.ModelError: Exit.MODEL_DAMAGED,
    errors.ModelUnsuitable: Exit.MODEL_DAMAGED,
    errors.ModelMissing: Exit.MODEL_MISSING,
    errors.ModelNotFound: Exit.MODEL_MISSING,
    errors.ModelUnavailable: Exit.MODEL_DAMAGED,
    errors.ModelInUse: Exit.BUSY,
    errors.HubUnreachable: Exit.HUB_UNREACHABLE,
    errors.NotInstalled: Exit.NOT_INSTALLED,
    errors.GpuTooSmall: Exit.GPU_TOO_SMALL,
    errors.GpuMissing: Exit.GPU_MISSING,
    errors.TorchMismatch: Exit.TORCH_MISMATCH,
    errors.FolderUnusable: Exit.FOLDER_UNUSABLE,
    errors.StoreError: Exit.FOLDER_UNUSABLE,
    errors.StoreFull: Exit.DISK_FULL,
    errors.StorageFull: Exit.DISK_FULL,
    errors.StorageUnavailable: Exit.FOLDER_UNUSABLE,
    errors.DiskFull: Exit.DISK_FULL,
    errors.StoreInUse: Exit.BUSY,
    errors.PortTaken: Exit.BUSY,
    errors.GpuBusy: Exit.BUSY,
}
"""By class of error; one that is not here goes by its nearest base that is."""


def code(error: ServiceError) -> Exit:
    """Return the exit code of a command that ends with ``error``."""
    return _of(type(error))


def after_load(failure: str) -> Exit | None:
    """Return the exit code of a service whose model did not load; None for one that stays.

    ``failure`` is the code of the engine's error. A damaged model keeps the service running:
    ``/health`` tells what is wrong, accepted jobs wait, and a restart would find the same
    files. All else is the machine's, which a restart may find changed, or a person has to
    change before anything can work; either way the supervisor must know.
    """
    kind = error_class(failure)
    return None if kind is ModelError else _of(kind)


def summary() -> str:
    """Return all codes in one sentence, for ``--help``."""
    said = ", ".join(f"{int(number)} {meaning}" for number, meaning in MEANINGS.items())
    return f"Exit codes: {said}."


def _of(kind: type[ServiceError]) -> Exit:
    return next((CODES[base] for base in kind.__mro__ if base in CODES), Exit.FAILED)
