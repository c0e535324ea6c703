"""The service with a job store that forgets, at every start, what was not finished.

``python -m tests.support.jobs.forgetful_service serve``: what a drill must find out.
"""

import sys

from service.jobs.store.schema import UNFINISHED
from service.jobs.store.sqlite import SqliteStore
from service.jobs.store.stored import StoredJob


async def forget(self: SqliteStore) -> list[StoredJob]:
    """Take the place of ``SqliteStore.unfinished``."""
    await self._database.run(
        lambda connection: connection.execute(f"DELETE FROM jobs WHERE {UNFINISHED}")  # noqa: S608
    )
    return []


if __name__ == "__main__":
    from service.__main__ import main

    SqliteStore.unfinished = forget  # type: ignore[method-assign]
    sys.exit(main())
