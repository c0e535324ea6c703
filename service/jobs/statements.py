"""What the job store says to SQLite more than a line long."""

from typing import Final

from service.jobs.schema import UNFINISHED
from service.jobs.stored import COLUMNS

SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608 - names of our own
INSERT: Final = (
    f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    " ON CONFLICT (key, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
)
FINISH: Final = (
    "UPDATE jobs SET state = ?, finished_at = ?, error_code = ?, error_detail = ?, steps_done = ?,"  # noqa: S608
    " metadata = ?, model_version = ?, idempotency_key = iif(?, NULL, idempotency_key),"
    " idempotency_digest = iif(?, '', idempotency_digest)"
    f" WHERE id = ? AND {UNFINISHED}"
)
"""The state is asked for in the statement that changes it: of two ends one is told."""

RELEASE: Final = (
    "UPDATE jobs SET idempotency_key = NULL, idempotency_digest = ''"  # noqa: S608
    f" WHERE id = ? AND NOT {UNFINISHED}"
)
EXPIRE: Final = (
    "UPDATE jobs SET expired_at = :now, request = '{}', metadata = NULL, error_detail = '',"
    " idempotency_key = NULL, idempotency_digest = '', webhook = NULL, webhook_state = NULL,"
    " webhook_detail = NULL WHERE id = :id AND expired_at IS NULL AND finished_at IS NOT NULL"
)
"""Leaves the job's id, its owner and its place; no prompt and no address."""
USED: Final = (
    "INSERT INTO usage (key, minute, images) VALUES (?, ?, ?)"
    " ON CONFLICT (key, minute) DO UPDATE SET images = images + excluded.images"
)
"""Adds pictures to those that a key paid for in a minute."""

USED_BY_JOB: Final = (
    "INSERT INTO usage (key, minute, images)"
    " SELECT key, CAST(created_at / 60 AS INTEGER), ? FROM jobs WHERE id = ?"
    " ON CONFLICT (key, minute) DO UPDATE SET images = images + excluded.images"
)
"""Adds those of a job to the minute in which they were charged."""
