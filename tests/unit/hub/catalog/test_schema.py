from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError, TimeoutError

from hub.catalog.engine import Catalog, newest_revision
from hub.catalog.models import BackupDisk, BackupJob, Base
from hub.catalog.queries import restorable_chain
from hub.errors import CatalogUnavailable, ChainDamaged
from hub.jobs.states import BackupType, Status
from shared.errors import ConfigurationError
from tests.unit.hub.catalog.story import Story, frozen


def test_migrations_make_the_tables_of_the_models(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert catalog.revision() == newest_revision()


def test_upgrade_changes_nothing_when_repeated(story: Story) -> None:
    job = story.whole()
    story.catalog.upgrade()
    assert story.job(job).status is Status.COMPLETED


def test_catalog_without_schema_is_refused(empty_catalog: Callable[[], Catalog]) -> None:
    catalog = empty_catalog()
    assert catalog.revision() is None
    with pytest.raises(ConfigurationError, match="db upgrade"):
        catalog.require_newest()


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "postgresql://host/db"])
def test_unusable_catalog_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Catalog(url)


def test_file_that_is_no_database_is_an_unusable_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database" * 1000)
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    with pytest.raises(CatalogUnavailable, match="not a database"):
        catalog.revision()


def test_database_without_a_free_connection_is_an_unusable_catalog(catalog: Catalog) -> None:
    with pytest.raises(CatalogUnavailable), catalog.read():
        raise TimeoutError("QueuePool limit reached")


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_sqlite_is_durable_and_keeps_foreign_keys(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}


def test_jobs_have_no_column_of_a_disk(catalog: Catalog) -> None:
    columns = {column["name"] for column in inspect(catalog.engine).get_columns("backup_jobs")}
    assert not {"disk_id", "change_id", "disk_change_id"} & columns


def test_disk_row_without_its_job_is_impossible(catalog: Catalog, story: Story) -> None:
    job = story.start()
    with pytest.raises(IntegrityError), catalog.write() as session:
        session.add(
            BackupDisk(
                vm_backup_context_id=job.vm_backup_context_id,
                backup_job_id="backup-nobody-1",
                disk_index=0,
                vmware_disk_key=2000,
                disk_uuid="u",
                label="",
                capacity_bytes=1,
                backup_type=BackupType.FULL,
                status=Status.PENDING,
                created_at=datetime.now(UTC),
            )
        )


@pytest.mark.parametrize(
    ("table", "key"), [("backup_jobs", "id"), ("vm_backup_contexts", "context_id")]
)
def test_disk_rows_go_with_their_job_and_context(story: Story, table: str, key: str) -> None:
    job = story.whole(frozen(0), frozen(1))
    value = job.id if table == "backup_jobs" else job.vm_backup_context_id
    with story.catalog.write() as session:
        session.execute(text(f"DELETE FROM {table} WHERE {key} = :value"), {"value": value})  # noqa: S608
        assert session.query(BackupDisk).count() == 0


def test_context_with_a_chain_goes_as_a_whole(story: Story) -> None:
    job = story.whole()
    story.whole()
    story.whole()
    with story.catalog.write() as session:
        session.execute(
            text("DELETE FROM vm_backup_contexts WHERE context_id = :id"),
            {"id": job.vm_backup_context_id},
        )
    with story.catalog.read() as session:
        assert session.query(BackupDisk).count() == session.query(BackupJob).count() == 0


def test_long_chain_of_many_disks_goes_with_its_context(story: Story) -> None:
    # More rows deep than InnoDB nests its cascades, which is 15.
    jobs = [story.whole(frozen(0), frozen(1), frozen(2)) for _ in range(18)]
    assert all(disk.base_disk_id for job in jobs[1:] for disk in job.disks)
    with story.catalog.write() as session:
        session.execute(text("DELETE FROM vm_backup_contexts"))
        assert session.query(BackupDisk).count() == session.query(BackupJob).count() == 0


def test_increment_whose_base_went_by_plain_sql_is_no_restore_point(story: Story) -> None:
    base = story.whole()
    increment = story.whole()
    assert increment.disks[0].base_disk_id == base.disks[0].id
    with story.catalog.write() as session:
        session.execute(text("DELETE FROM backup_jobs WHERE id = :id"), {"id": base.id})
    with story.catalog.read() as session, pytest.raises(ChainDamaged, match="without a base"):
        restorable_chain(session, increment.id, 0)
