"""What the hub's client raises, turned into what can be done about it; imports no torch."""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from service.errors import (
    DiskFull,
    FolderUnusable,
    HubUnreachable,
    ModelError,
    ModelMissing,
    ModelUnsuitable,
    ServiceError,
)
from service.models import catalog, commands, parts

SERVER_ERROR: Final = 500
CLIENTS: Final = frozenset(
    {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests"}
)


@contextmanager
def explained(name: str, cache_dir: Path) -> Iterator[None]:
    """Turn what the hub's client raises into what can be done about it."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{name}: {error.detail}") from error
    except ServiceError:
        raise
    except GatedRepoError as error:
        raise ModelMissing(
            f"{name} requires you to accept its terms: accept them on the hub, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelMissing(
            f"the hub {constants.ENDPOINT} has no model {name}, or not for you. Check MODEL_ID, "
            "and set HF_TOKEN for a private one."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelUnsuitable(
            f"{name}: the hub has no {catalog.INDEX} of it, so it is no model in diffusers layout. "
            f"{parts.SUPPORTED}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubUnreachable(f"HF_HUB_OFFLINE=1 forbids downloading {name}.") from error
    except Exception as error:
        raise _known(error, name, cache_dir) from error


def _known(error: Exception, name: str, cache_dir: Path) -> Exception:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(isinstance(one, OSError) and one.errno == errno.ENOSPC for one in causes):
        free = shutil.disk_usage(cache_dir).free
        return DiskFull(no_room(name, cache_dir, "the disk is full", free))
    for one in causes:
        if isinstance(one, OSError) and one.filename is not None:
            return FolderUnusable(
                f"MODEL_CACHE_DIR={cache_dir}: {one.filename} cannot be written ({one.strerror}). "
                "Make all in there writable for the service's user, or name another folder."
            )
    if isinstance(error, HfHubHTTPError) and error.response.status_code < SERVER_ERROR:
        return ModelError(f"{name}: the hub refused it: {_first_line(error)}")
    if any(_is_of_the_network(one) for one in causes):
        return HubUnreachable(
            f"{name} is not in {cache_dir}, and {constants.ENDPOINT} does not answer "
            f"({_first_line(causes[-1])}). Check the network and proxy, set HF_ENDPOINT to a "
            "mirror, or copy the model there from a machine that has it."
        )
    return error


def _is_of_the_network(error: Any) -> bool:
    # The client's own classes changed their package between its releases. Something else than a
    # hub, a login page of the network for one, answers what the client cannot read.
    package = type(error).__module__.partition(".")[0]
    return package in CLIENTS or isinstance(
        error, (ConnectionError, TimeoutError, json.JSONDecodeError)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def no_room(name: str, cache_dir: Path, need: str, free: int) -> str:
    """Return the text of the error that a disk is too full for a model."""
    return (
        f"MODEL_CACHE_DIR={cache_dir} has no room for {name}: {need}, and {gigabytes(free)} are "
        "free. Name a folder on another disk, or make room with 'models remove'. This command "
        f"lists what can be removed: {commands.models('list', cache_dir=cache_dir)}"
    )


def gigabytes(size: int) -> str:
    """Return a size in GB."""
    return f"{size / 2**30:.1f} GB"
