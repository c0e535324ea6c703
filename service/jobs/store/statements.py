"""What the job store says to SQLite more than a line long."""

from typing import Final

from service.jobs.store.schema import UNFINISHED
from service.jobs.store.stored import COLUMNS

INSERT: Final = (
    # The table has had a priority since its first version, which nothing reads.
    f"INSERT INTO jobs (priority, {', '.join(COLUMNS)})"  # noqa: S608
    f" VALUES (0, {', '.join('?' * len(COLUMNS))})"
    " ON CONFLICT (key, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
)
BY_IDEMPOTENCY_KEY: Final = "WHERE key = ? AND idempotency_key = ?"
PLACE: Final = "SELECT seq FROM jobs WHERE id = ? AND key = ?"

OF_ATTEMPT: Final = f"WHERE id = :id AND {UNFINISHED} AND epoch <= ifnull(:epoch, epoch)"
"""Both are asked for in the statement that changes them: of two ends one is told, and an attempt
that a later one followed says nothing. An attempt whose begin could not be written may end."""

BEGIN: Final = (
    "UPDATE jobs SET state = 'running', attempts = attempts + 1, epoch = :epoch, steps_done = 0,"  # noqa: S608
    f" started_at = :now WHERE id = :id AND {UNFINISHED} AND epoch < :epoch"
)
WAIT: Final = "state = 'queued', epoch = :epoch, steps_done = 0, started_at = NULL"
"""The epoch is written again: where the begin could not be, a later process must not repeat it."""

REQUEUE: Final = f"UPDATE jobs SET {WAIT} {OF_ATTEMPT}"  # noqa: S608
RESUME: Final = (
    "UPDATE jobs SET state = 'running', started_at = :now, epoch = :epoch,"  # noqa: S608
    f" attempts = attempts + (epoch < :epoch) WHERE id = :id AND {UNFINISHED} AND epoch <= :epoch"
)
HAND_BACK: Final = f"UPDATE jobs SET attempts = attempts - (state = 'running'), {WAIT} {OF_ATTEMPT}"  # noqa: S608
FINISH: Final = (
    "UPDATE jobs SET state = :state, finished_at = :now, error_code = :error_code,"  # noqa: S608
    " error_detail = :error_detail, steps_done = :steps_done, metadata = :metadata,"
    " model_version = :model_version,"
    " idempotency_key = iif(:forget_key, NULL, idempotency_key),"
    " idempotency_digest = iif(:forget_key, '', idempotency_digest)"
    f" {OF_ATTEMPT}"
)
DELIVER: Final = (
    "UPDATE jobs SET webhook_state = ?, webhook_attempts = ?, webhook_status = ?,"
    " webhook_detail = ? WHERE id = ? AND webhook IS NOT NULL"
)
UNDELIVERED: Final = f"WHERE webhook_state = 'pending' AND NOT {UNFINISHED}"
SET_ASIDE: Final = "SELECT count(*) FROM set_aside"
FIGURES: Final = f"SELECT count(*), min(finished_at), ({SET_ASIDE}) FROM jobs {UNDELIVERED}"  # noqa: S608
OLDER: Final = "SELECT id FROM jobs WHERE expired_at IS NULL AND finished_at < ?"
WITH_IMAGES: Final = (
    f"SELECT id FROM jobs WHERE expired_at IS NULL AND ({UNFINISHED} OR state = 'succeeded')"  # noqa: S608
)
RELEASE: Final = (
    "UPDATE jobs SET idempotency_key = NULL, idempotency_digest = ''"  # noqa: S608
    f" WHERE id = ? AND NOT {UNFINISHED}"
)
FORGET: Final = (
    "UPDATE jobs SET expired_at = :now, request = '{}', metadata = NULL, error_detail = '',"
    " idempotency_key = NULL, idempotency_digest = '', webhook = NULL, webhook_state = NULL,"
    " webhook_detail = NULL"
)
"""Leaves the job's id, its owner and its place; no prompt and no address."""

EXPIRE: Final = f"{FORGET} WHERE id = :id AND expired_at IS NULL AND finished_at IS NOT NULL"
EXPIRE_WITHOUT_IMAGES: Final = f"""{FORGET} WHERE seq IN (
    WITH ended AS (
        SELECT seq, finished_at, row_number() OVER (PARTITION BY key ORDER BY seq DESC) AS newest
        FROM jobs
        WHERE expired_at IS NULL AND state IN ('failed', 'cancelled')
            AND webhook_state IS NOT 'pending'
    ), kept AS (
        SELECT seq FROM ended WHERE finished_at >= :before ORDER BY newest, seq DESC LIMIT :most
    )
    SELECT seq FROM ended EXCEPT SELECT seq FROM kept
)"""  # noqa: S608 - words of our own
"""Each key's newest come first, then each key's second: whoever has many loses the rest."""

PURGE: Final = (
    "DELETE FROM jobs WHERE expired_at < ? OR seq IN (SELECT seq FROM jobs"
    " WHERE expired_at IS NOT NULL ORDER BY expired_at DESC, seq DESC LIMIT -1 OFFSET ?)"
)
OWNED: Final = f"SELECT id FROM jobs WHERE key = :owner AND (:unfinished OR NOT {UNFINISHED})"  # noqa: S608
REMOVE: Final = f"DELETE FROM jobs WHERE key = :owner AND (:unfinished OR NOT {UNFINISHED})"  # noqa: S608
USED: Final = (
    "INSERT INTO usage (key, minute, images) VALUES (?, ?, ?)"
    " ON CONFLICT (key, minute) DO UPDATE SET images = images + excluded.images"
)
"""Adds images to those that a key paid for in a minute."""

USED_BY_JOB: Final = (
    "INSERT INTO usage (key, minute, images)"
    " SELECT key, CAST(created_at / 60 AS INTEGER), ? FROM jobs WHERE id = ?"
    " ON CONFLICT (key, minute) DO UPDATE SET images = images + excluded.images"
)
"""Adds those of a job to the minute in which they were charged."""
