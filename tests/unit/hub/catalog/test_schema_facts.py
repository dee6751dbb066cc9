"""What the database itself holds to, asked of the database, on each engine."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DataError, IntegrityError

from hub.catalog.engine import LOCK_TIMEOUT_S, Catalog
from hub.catalog.lists import list_contexts
from hub.catalog.models import BackupDisk, Base
from tests.unit.hub.catalog.conftest import NOON, Clock
from tests.unit.hub.catalog.engines import on_mariadb
from tests.unit.hub.catalog.story import PGTEST, Story, frozen

FOREIGN_KEYS = {
    ("vm_backup_contexts", "repository_id", "backup_repositories", None),
    ("backup_jobs", "vm_backup_context_id", "vm_backup_contexts", "CASCADE"),
    ("backup_jobs", "repository_id", "backup_repositories", None),
    ("backup_disks", "vm_backup_context_id", "vm_backup_contexts", "CASCADE"),
    ("backup_disks", "backup_job_id", "backup_jobs", "CASCADE"),
    ("backup_disks", "base_disk_id", "backup_disks", "SET NULL"),
    ("agent_inventories", "agent_id", "agents", "CASCADE"),
    ("backup_retries", "job_id", "backup_jobs", "CASCADE"),
    ("backup_retries", "retry_of_job_id", "backup_jobs", "CASCADE"),
    ("file_removals", "repository_id", "backup_repositories", None),
}
UNIQUE_KEYS = {
    ("backup_repositories", "name"),
    ("agents", "site"),
    ("vm_backup_contexts", "site", "instance_uuid", "repository_id"),
    ("backup_jobs", "vm_backup_context_id", "run_number"),
    ("backup_jobs", "active_context_id"),
    ("backup_jobs", "request_id"),
    ("backup_disks", "backup_job_id", "disk_index"),
    ("backup_disks", "legacy_id"),
}
CHECKED_WORDS = [
    ("vm_backup_contexts", "last_backup_type"),
    ("backup_jobs", "status"),
    ("backup_jobs", "backup_type"),
    ("backup_jobs", "requested_type"),
    ("backup_jobs", "consistency"),
    ("backup_disks", "status"),
    ("backup_disks", "backup_type"),
    ("backup_disks", "read_method"),
]


def test_foreign_keys_lead_from_disk_to_job_to_context(catalog: Catalog) -> None:
    inspector = inspect(catalog.engine)
    assert {
        (
            table,
            *key["constrained_columns"],
            key["referred_table"],
            key["options"].get("ondelete"),
        )
        for table in inspector.get_table_names()
        for key in inspector.get_foreign_keys(table)
    } == FOREIGN_KEYS


def test_keys_are_unique(catalog: Catalog) -> None:
    inspector = inspect(catalog.engine)
    constraints = {
        (table, *key["column_names"])
        for table in inspector.get_table_names()
        for key in inspector.get_unique_constraints(table)
    }
    indexes = {
        (table, *index["column_names"])
        for table in inspector.get_table_names()
        for index in inspector.get_indexes(table)
        if index["unique"]
    }
    assert constraints | indexes == UNIQUE_KEYS


def test_second_live_job_of_a_context_is_refused_by_the_database(story: Story) -> None:
    ended = story.whole()
    live = story.start()
    with pytest.raises(IntegrityError), story.catalog.write() as session:
        session.execute(
            text("UPDATE backup_jobs SET active_context_id = :context WHERE id = :id"),
            {"context": live.active_context_id, "id": ended.id},
        )


def test_unknown_word_is_refused_by_the_database(story: Story) -> None:
    story.whole()
    for table, column in CHECKED_WORDS:
        for word in ("done", "COMPLETED", "Full"):
            with pytest.raises(IntegrityError), story.catalog.write() as session:
                session.execute(
                    text(f"UPDATE {table} SET {column} = :word"),  # noqa: S608
                    {"word": word},
                )


@pytest.mark.parametrize(
    "name",
    ["数据库サーバー", "Сервер", "خادم", "🗄️" * 100, "Büro", "a\\b'c\"d%s:x"],
    ids=["han", "cyrillic", "arabic", "emoji", "latin", "punctuation"],
)
def test_name_of_any_script_comes_back_as_it_was(story: Story, name: str) -> None:
    job = story.start(replace(PGTEST, name=name))
    assert story.context(job).vm_name == name
    with story.catalog.read() as session:
        assert session.scalar(text("SELECT vm_name FROM vm_backup_contexts")) == name
        assert len(list_contexts(session, vm_name=name)[0]) == 1


def test_names_that_differ_in_case_or_accent_alone_are_two(story: Story) -> None:
    for site in ("lab", "Lab", "láb"):
        story.start(replace(PGTEST, site=site, name=site))
    with story.catalog.read() as session:
        assert [row.site for row in list_contexts(session, vm_name="Lab")[0]] == ["Lab"]
        assert session.scalar(text("SELECT count(*) FROM vm_backup_contexts")) == 3


def test_times_keep_microseconds_and_zone(story: Story, clock: Clock) -> None:
    first = story.start()
    story.fail(first)
    clock.advance(1e-6)
    second = story.start()
    assert story.job(first).created_at == NOON
    assert NOON.microsecond == 123456
    assert story.job(second).created_at == NOON + timedelta(microseconds=1)
    # Also for the database they differ.
    with story.catalog.read() as session:
        count = session.scalar(text("SELECT count(DISTINCT created_at) FROM backup_jobs"))
    assert count == 2


def test_byte_counts_have_63_bits(story: Story) -> None:
    largest = 2**63 - 1
    job = story.whole(frozen(capacity_bytes=2**62 - 1))
    columns = ("bytes_planned", "bytes_read", "bytes_transferred", "bytes_stored")
    with story.catalog.write() as session:
        for table in ("backup_jobs", "backup_disks"):
            values = ", ".join(f"{column} = :largest" for column in columns)
            session.execute(text(f"UPDATE {table} SET {values}"), {"largest": largest})  # noqa: S608
    after = story.job(job)
    assert [getattr(after, column) for column in columns] == [largest] * 4
    assert [getattr(after.disks[0], column) for column in columns] == [largest] * 4
    assert after.disks[0].capacity_bytes == 2**62 - 1


@on_mariadb
def test_numbers_of_bytes_and_rows_are_bigint_and_times_have_six_digits(catalog: Catalog) -> None:
    with catalog.read() as session:
        columns = session.execute(
            text(
                "SELECT table_name, column_name, data_type, datetime_precision "
                "FROM information_schema.columns WHERE table_schema = database()"
            )
        ).all()
    of_bytes = {row[2] for row in columns if row[1].startswith("bytes_") or "_bytes" in row[1]}
    rows = {
        row[2] for row in columns if row[0] == "backup_disks" and row[1] in ("id", "base_disk_id")
    }
    assert of_bytes == rows == {"bigint"}
    assert {row[2:] for row in columns if row[1].endswith("_at")} == {("datetime", 6)}


@on_mariadb
def test_tables_are_innodb_and_compare_text_by_its_bytes(catalog: Catalog) -> None:
    with catalog.read() as session:
        tables = session.execute(
            text(
                "SELECT engine, table_collation FROM information_schema.tables "
                "WHERE table_schema = database() AND table_name != 'alembic_version'"
            )
        ).all()
    assert len(tables) == len(Base.metadata.tables) == 8
    assert set(tables) == {("InnoDB", "utf8mb4_bin")}


@on_mariadb
def test_session_is_strict_whatever_the_server_is_set_to(catalog: Catalog) -> None:
    question = text(
        "SELECT @@sql_mode, @@tx_isolation, @@innodb_lock_wait_timeout, "
        "@@character_set_client, @@character_set_connection"
    )
    for transaction, isolation in (
        (catalog.write, "READ-COMMITTED"),
        (catalog.read, "REPEATABLE-READ"),
        (catalog.write, "READ-COMMITTED"),  # also on a connection that has read before
    ):
        with transaction() as session:
            assert session.execute(question).one() == (
                "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
                isolation,
                LOCK_TIMEOUT_S,
                "utf8mb4",
                "utf8mb4",
            )


@on_mariadb
def test_text_that_does_not_fit_is_refused_not_cut(story: Story) -> None:
    job = story.whole()
    with pytest.raises(DataError), story.catalog.write() as session:
        session.execute(text("UPDATE backup_disks SET label = :label"), {"label": "x" * 256})
    with story.catalog.read() as session:
        assert session.query(BackupDisk).one().label == job.disks[0].label
