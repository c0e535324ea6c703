"""The service with a job store that forgets, at every start, what was not finished.

``python -m tests.forgetful_service serve``: what a drill must find out.
"""

import sys

from service.jobs.schema import UNFINISHED
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob


async def forget(self: JobStore) -> list[StoredJob]:
    """Take the place of ``JobStore.unfinished``."""
    await self._database.run(
        lambda connection: connection.execute(f"DELETE FROM jobs WHERE {UNFINISHED}")  # noqa: S608
    )
    return []


if __name__ == "__main__":
    from service.__main__ import main

    JobStore.unfinished = forget  # type: ignore[method-assign]
    sys.exit(main())
