"""What the job store says to SQLite more than a line long."""

from typing import Final

from service.jobs.schema import UNFINISHED
from service.jobs.stored import COLUMNS

SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM jobs"  # noqa: S608 - names of our own
INSERT: Final = (
    f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    " ON CONFLICT (key, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
)
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
