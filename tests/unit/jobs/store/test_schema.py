"""The tables, and which files get them."""

import shutil
import sqlite3

import pytest

from service.errors import StoreError
from service.jobs.store import schema


@pytest.fixture
def path(tmp_path):
    """Make a store's file with some thousand bytes in it."""
    made = tmp_path / "jobs.sqlite3"
    connection = schema.connect(made, 1.0)
    with schema.transaction(connection):
        for number in range(200):
            add(connection, number)
    connection.close()
    return made


def add(connection, number):
    connection.execute(
        "INSERT INTO jobs (id, key, state, request, request_id, trace_id, priority, created_at,"
        " attempts, steps_done, error_code, error_detail, model_version, idempotency_digest)"
        " VALUES (?, 'anna', 'queued', '{}', '', '', 0, 0, 0, 0, '', '', '', '')",
        (f"{number:032x}",),
    )


def ids(path):
    connection = schema.connect(path, 1.0)
    found = [int(row[0], 16) for row in connection.execute("SELECT id FROM jobs ORDER BY seq")]
    connection.close()
    return found


def test_a_file_is_made_once(path):
    """Opening it again finds what is in it."""
    assert ids(path) == list(range(200))
    connection = schema.connect(path, 1.0)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    connection.close()


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused_and_not_touched(path, part):
    """Somebody may still save what is in it."""
    content = path.read_bytes()[: int(path.stat().st_size * part)]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged\. Nothing was deleted") as refused:
        schema.connect(path, 1.0)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 99, b"SQLite format 3\0" + b"x" * 999]
)
def test_what_is_no_database_is_refused(path, content):
    """A wrong path must not cost anybody a file."""
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        schema.connect(path, 1.0)
    assert path.read_bytes() == content


def test_an_emptied_file_does_not_cost_its_journal(path):
    """SQLite would delete a journal whose file is empty, and with it what can be saved."""
    journal = path.with_name("jobs.sqlite3-wal")
    connection = schema.connect(path, 1.0)
    add(connection, 777)
    copy = journal.read_bytes()
    connection.close()
    path.write_bytes(b"")
    journal.write_bytes(copy)
    with pytest.raises(StoreError, match="is empty, and its journal is not"):
        schema.connect(path, 1.0)
    assert journal.read_bytes() == copy


def test_a_copy_made_in_the_middle_of_writing_holds_what_was_complete(path, tmp_path):
    """Wherever the copy of the journal ends: whole transactions, in their order, no part of one."""
    connection = schema.connect(path, 1.0)
    for number in range(200, 230):
        with schema.transaction(connection):
            add(connection, number)
            add(connection, number + 1000)
    journal = path.with_name("jobs.sqlite3-wal").read_bytes()
    found = []
    for end in range(0, len(journal) + 1, max(1, len(journal) // 25)):
        copy = tmp_path / f"copy-{end}.sqlite3"
        shutil.copyfile(path, copy)
        copy.with_name(f"{copy.name}-wal").write_bytes(journal[:end])
        found.append(ids(copy))
    connection.close()
    whole = [*range(200), *(n for i in range(200, 230) for n in (i, i + 1000))]
    assert {len(one) % 2 for one in found} == {0}
    assert all(one == whole[: len(one)] for one in found)
    assert [len(one) for one in found] == sorted(len(one) for one in found)
    assert ids(path) == whole


def test_a_newer_file_is_refused(path):
    """It names both versions and both ways out."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    said = rf"newer version .* \(format 99; this one knows {len(schema.MIGRATIONS)}\)"
    with pytest.raises(StoreError, match=said):
        schema.connect(path, 1.0)


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE songs (name)", "PRAGMA user_version = 1", "PRAGMA application_id = 9"],
)
def test_the_database_of_another_program_is_refused(tmp_path, statement):
    """Its tables stay as they are."""
    path = tmp_path / "songs.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        schema.connect(path, 1.0)
    assert path.read_bytes() == content


def test_an_older_file_is_brought_up_step_by_step(path, monkeypatch):
    """What is in it stays."""
    later = (
        ("ALTER TABLE jobs ADD COLUMN node TEXT NOT NULL DEFAULT 'here'",),
        (
            "CREATE INDEX jobs_of_node ON jobs (node)",
            "UPDATE jobs SET node = 'there' WHERE seq = 1",
        ),
    )
    newest = len(schema.MIGRATIONS) + len(later)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *later))
    for _ in range(2):
        connection = schema.connect(path, 1.0)
        assert connection.execute("PRAGMA user_version").fetchone() == (newest,)
        assert connection.execute("SELECT node FROM jobs WHERE seq < 3").fetchall() == [
            ("there",),
            ("here",),
        ]
        connection.close()


def test_a_file_of_the_first_version_is_brought_up_to_this_one(tmp_path, monkeypatch):
    """With the jobs that it holds."""
    path = tmp_path / "jobs.sqlite3"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        connection = schema.connect(path, 1.0)
        add(connection, 7)
        connection.close()
    assert ids(path) == [7]
    connection = schema.connect(path, 1.0)
    assert connection.execute("SELECT count(*) FROM usage").fetchone() == (0,)
    connection.close()


def test_a_step_that_fails_leaves_the_version_before_it(path, monkeypatch):
    """Half a migration would be a file that no version understands."""
    broken = ("ALTER TABLE jobs ADD COLUMN node TEXT", "CREATE NONSENSE")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
            schema.connect(path, 1.0)
    connection = schema.connect(path, 1.0)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert "node" not in {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
    connection.close()


def test_the_file_alone_is_a_store_from_the_first_start(tmp_path):
    """Who copies it without its journal has no jobs, but not another program's file."""
    path = tmp_path / "jobs.sqlite3"
    connection = schema.connect(path, 1.0)
    copy = tmp_path / "copy.sqlite3"
    shutil.copyfile(path, copy)
    connection.close()
    assert ids(copy) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("key = 'a' AND expired_at IS NULL AND seq < 9 ORDER BY seq DESC", "jobs_of_key"),
        (
            "key = 'a' AND state = 'failed' AND expired_at IS NULL ORDER BY seq DESC",
            "jobs_of_key_in_state",
        ),
        (f"{schema.UNFINISHED} ORDER BY seq", "jobs_unfinished"),
        ("expired_at IS NULL AND finished_at < 9", "jobs_finished"),
        ("expired_at < 9", "jobs_expired"),
        (f"webhook_state = 'pending' AND NOT {schema.UNFINISHED} ORDER BY seq", "jobs_undelivered"),
        ("key = 'a' AND idempotency_key = 'b'", "jobs_idempotency"),
    ],
)
def test_no_query_reads_every_job(path, query, index):
    """A store of a million jobs answers as one of ten."""
    connection = sqlite3.connect(path)
    plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE {query}").fetchall()  # noqa: S608
    connection.close()
    assert f"INDEX {index}" in plan[0][3]
    assert "TEMP B-TREE" not in str(plan)
