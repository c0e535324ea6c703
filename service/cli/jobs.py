"""The command ``jobs``: removing what is kept for an API key."""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Final

from service.cli.exits import Exit
from service.cli.terminal import print_error, show
from service.config.table import Config
from service.errors import ConfigError, StorageUnavailable, StoreInUse
from service.telemetry import logs

ACTIONS: Final = {
    "purge": "remove all jobs of an API key, with their prompts, images, input images and webhooks"
}
WAIT_SECONDS: Final = 150.0
"""A service looks once a minute, and may have much to remove."""

POLL_SECONDS: Final = 0.5
NONE: Final = "The key {key} had no jobs. --key takes the name of a key, not the key itself."


def add_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to be done, and for which key."""
    told = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument("action", choices=tuple(ACTIONS), metavar="ACTION", help=f"{told}.")
    parser.add_argument(
        "--key",
        metavar="NAME",
        required=True,
        help="Name of the API key, in force or not; anonymous for jobs without a key.",
    )


def jobs(config: Config, arguments: argparse.Namespace) -> int:
    """Remove all jobs of a key; return an exit code of ``exits``.

    Raises:
        ConfigError: there is no DATA_DIR.
        ServiceError: DATA_DIR cannot be used.

    """
    # Other commands start faster.
    from service.jobs.durable import purging, wiring, wishes  # noqa: PLC0415
    from service.jobs.store.sqlite import keeps_jobs_of  # noqa: PLC0415

    logs.configure(config)
    key = str(arguments.key)
    if not config.data_dir or not (Path(config.data_dir) / wiring.FILE).exists():
        where = f"DATA_DIR={config.data_dir}"
        raise ConfigError(f"{where}: no jobs are kept there; set it to the folder of the service.")
    try:
        removed = asyncio.run(purging.purge(config, key))
    except StoreInUse:
        print_error("the service is running and removes them, within a minute or so.")
        known = keeps_jobs_of(key, Path(config.data_dir) / wiring.FILE)
        try:
            asked = wishes.wish(config, key)
        except OSError as error:
            raise StorageUnavailable(f"DATA_DIR={config.data_dir}: {error}.") from error
        if not _done(asked):
            print_error("the service has not done it yet; it will, at its next start at the latest")
            return Exit.BUSY
        if not known:
            return show(NONE.format(key=key))
        return show(f"All jobs of the key {key} that were there are removed.")
    if not removed:
        return show(NONE.format(key=key))
    return show(f"{removed} jobs of the key {key} are removed.")


def _done(asked: Path) -> bool:
    until = time.monotonic() + WAIT_SECONDS
    while asked.exists():
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)
    return True
