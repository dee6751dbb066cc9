"""Each rule of the catalog finds the row that breaks it, and nothing in a sound catalog."""

from dataclasses import dataclass

import pytest
from sqlalchemy import text

from hub.catalog.check import (
    MOST_FINDINGS,
    CheckedRows,
    Finding,
    broken_rules,
    check_database,
    check_rows,
    check_schema,
)
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupJob
from hub.jobs.states import Event
from tests.unit.hub.catalog.engines import on_sqlite
from tests.unit.hub.catalog.story import PGTEST, Story, frozen

OTHER = type(PGTEST)(site="lab", instance_uuid="uuid-2", moref="vm-2", name="other")


@dataclass(frozen=True)
class Lived:
    """A sound catalog in which everything has happened."""

    first: BackupJob
    second: BackupJob
    failed: BackupJob
    elsewhere: BackupJob
    running: BackupJob


@pytest.fixture
def lived(story: Story) -> Lived:
    first = story.whole(frozen(0), frozen(1))
    second = story.whole(frozen(0), frozen(1))
    failed = story.start()
    story.open(failed)
    story.fail(failed)
    cancelled = story.start()
    story.fail(cancelled, Event.CANCELLED)
    elsewhere = story.whole(vm=OTHER, repository="repo-other")
    running = story.start(OTHER, repository="repo-other")
    story.open(running)
    return Lived(first, second, failed, elsewhere, running)


def test_nothing_is_found_in_a_sound_catalog(catalog: Catalog, lived: Lived) -> None:
    assert check_schema(catalog) == []
    assert check_database(catalog) == []
    assert check_rows(catalog) == (CheckedRows(contexts=2, jobs=6, disks=7), [])


def test_nothing_is_found_in_an_empty_catalog(catalog: Catalog) -> None:
    assert check_rows(catalog) == (CheckedRows(0, 0, 0), [])


# What is done to the rows: {0} is the first job, {1} the second, {2} the failed one,
# {3} the other VM's, {4} the running one, {c} the context of the first, {d} the other's;
# then what is found, as area and subject.
BREAKS: dict[str, tuple[str, set[tuple[str, str]]]] = {
    "completed job with a disk that is not": (
        "UPDATE backup_disks SET status = 'failed' WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("jobs", "{1}")},
    ),
    "completed job without one of its disks": (
        "DELETE FROM backup_disks WHERE backup_job_id = '{1}' AND disk_index = 1",
        {("jobs", "{1}"), ("counters", "{1}")},
    ),
    "completed job without any disk": (
        "DELETE FROM backup_disks WHERE backup_job_id = '{1}'",
        {("jobs", "{1}"), ("counters", "{1}")},
    ),
    "completed disk of a failed job": (
        "UPDATE backup_disks SET status = 'completed', qcow2_path = 'x', root_digest = 'y', "
        "completed_at = created_at WHERE backup_job_id = '{2}'",
        {("jobs", "{2}")},
    ),
    "running job that counts another disk": (
        "UPDATE backup_jobs SET disk_count = 2 WHERE id = '{4}'",
        {("jobs", "{4}")},
    ),
    "completed disk without a path": (
        "UPDATE backup_disks SET qcow2_path = NULL WHERE backup_job_id = '{0}' AND disk_index = 1",
        {("jobs", "{0} disk 1")},
    ),
    "completed disk without a digest that was not imported": (
        "UPDATE backup_disks SET root_digest = NULL WHERE backup_job_id = '{0}' AND disk_index = 0",
        {("jobs", "{0} disk 0")},
    ),
    "two running jobs of a context": (
        "UPDATE backup_jobs SET status = 'running', disk_count = 1 WHERE id = '{2}'; "
        "UPDATE backup_jobs SET vm_backup_context_id = '{c}', repository_id = 'repo-default', "
        "run_number = 3000, active_context_id = '{c}' WHERE id = '{4}'; "
        "UPDATE backup_disks SET vm_backup_context_id = '{c}' WHERE backup_job_id = '{4}'; "
        "UPDATE vm_backup_contexts SET total_backups_run = 3000",
        {("jobs", "{c}"), ("jobs", "{2}")},
    ),
    "running job without the mark": (
        "UPDATE backup_jobs SET active_context_id = NULL WHERE id = '{4}'",
        {("jobs", "{4}")},
    ),
    "ended job with the mark": (
        "UPDATE backup_jobs SET active_context_id = '{c}' WHERE id = '{2}'",
        {("jobs", "{2}")},
    ),
    "job in another repository than its context": (
        "UPDATE backup_jobs SET repository_id = 'repo-other' WHERE id = '{2}'",
        {("jobs", "{2}")},
    ),
    "disk in another context than its job": (
        "UPDATE backup_disks SET vm_backup_context_id = '{d}' WHERE backup_job_id = '{2}'",
        {("jobs", "{2} disk 0")},
    ),
    "two default repositories": (
        "UPDATE backup_repositories SET is_default = 1",
        {("jobs", "other")},
    ),
    "increment without a base": (
        "UPDATE backup_disks SET base_disk_id = NULL "
        "WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("chains", "{1} disk 0")},
    ),
    "full with a base": (
        "UPDATE backup_disks SET backup_type = 'full' "
        "WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("chains", "{1} disk 0")},
    ),
    "disk read as a whole with a base": (
        "UPDATE backup_disks SET read_method = 'allocated' "
        "WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("chains", "{1} disk 0")},
    ),
    "compared disk without a base": (
        "UPDATE backup_disks SET read_method = 'compared' "
        "WHERE backup_job_id = '{0}' AND disk_index = 1",
        {("chains", "{0} disk 1")},
    ),
    "base of another context": (
        "UPDATE backup_disks SET base_disk_id = {other_disk} "
        "WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("chains", "{1} disk 0")},
    ),
    "base that is another disk": (
        "UPDATE backup_disks SET base_disk_id = {first_disk_1} "
        "WHERE backup_job_id = '{1}' AND disk_index = 0",
        {("chains", "{1} disk 0")},
    ),
    "base that is later than what builds on it": (
        "UPDATE backup_jobs SET run_number = 2000 WHERE id = '{0}'; "
        "UPDATE vm_backup_contexts SET total_backups_run = 2000, last_backup_id = '{0}', "
        "last_backup_type = 'full' WHERE context_id = '{c}'",
        {("chains", "{1} disk 0"), ("chains", "{1} disk 1")},
    ),
    "base that is larger": (
        "UPDATE backup_disks SET capacity_bytes = capacity_bytes * 2 "
        "WHERE backup_job_id = '{0}' AND disk_index = 1",
        {("chains", "{1} disk 1")},
    ),
    "context that counts another restore point": (
        "UPDATE vm_backup_contexts SET restore_point_count = 3 WHERE context_id = '{c}'",
        {("counters", "{c}")},
    ),
    "context that counts other bytes": (
        "UPDATE vm_backup_contexts SET bytes_stored = bytes_stored + 1 WHERE context_id = '{d}'",
        {("counters", "{d}")},
    ),
    "job with other bytes than its disks": (
        "UPDATE backup_disks SET bytes_stored = bytes_stored + 1 "
        "WHERE backup_job_id = '{0}' AND disk_index = 1",
        {("counters", "{0}")},
    ),
    "last backup that is another one": (
        "UPDATE vm_backup_contexts SET last_backup_id = '{0}' WHERE context_id = '{c}'",
        {("counters", "{c}")},
    ),
    "last backup of another type": (
        "UPDATE vm_backup_contexts SET last_backup_type = 'full' WHERE context_id = '{c}'",
        {("counters", "{c}")},
    ),
    "last backup that is missing": (
        "UPDATE vm_backup_contexts SET last_backup_id = NULL, last_backup_at = NULL, "
        "last_backup_type = NULL WHERE context_id = '{d}'",
        {("counters", "{d}")},
    ),
    "last backup where there is none": (
        "DELETE FROM backup_jobs WHERE id = '{3}'; UPDATE vm_backup_contexts "
        "SET restore_point_count = 0, bytes_stored = 0 WHERE context_id = '{d}'",
        {("counters", "{d}")},
    ),
    "number that was never given out": (
        "UPDATE vm_backup_contexts SET total_backups_run = 1 WHERE context_id = '{d}'",
        {("counters", "{d}")},
    ),
}


def test_row_that_breaks_a_rule_is_found(catalog: Catalog, lived: Lived) -> None:
    jobs = (lived.first, lived.second, lived.failed, lived.elsewhere, lived.running)
    names = {
        "c": lived.first.vm_backup_context_id,
        "d": lived.elsewhere.vm_backup_context_id,
        "other_disk": str(lived.elsewhere.disks[0].id),
        "first_disk_1": str(lived.first.disks[1].id),
    }

    def told(words: str) -> str:
        return words.format(*(job.id for job in jobs), **names)

    for name, (statements, findings) in BREAKS.items():
        with catalog.write() as session:
            for statement in told(statements).split("; "):
                changed = session.execute(text(statement))
                assert changed.rowcount > 0, name  # type: ignore[attr-defined]
            found = {(each.area, each.subject) for each in broken_rules(session)}
            session.rollback()
        assert found == {(area, told(subject)) for area, subject in findings}, name
    assert check_rows(catalog)[1] == []


def test_imported_disk_needs_no_digest(catalog: Catalog, lived: Lived) -> None:
    with catalog.write() as session:
        session.execute(
            text("UPDATE backup_disks SET root_digest = NULL, legacy_id = CAST(id AS CHAR(20))")
        )
        assert broken_rules(session) == []


def test_findings_of_one_rule_are_bounded(catalog: Catalog, story: Story) -> None:
    job = story.whole(*(frozen(index) for index in range(MOST_FINDINGS + 2)))
    with catalog.write() as session:
        session.execute(text("UPDATE backup_disks SET qcow2_path = NULL"))
        found = broken_rules(session)
    assert len(found) == MOST_FINDINGS + 1
    assert found[-1] == Finding("jobs", "...", f"more than {MOST_FINDINGS} like the last one")
    assert found[0].subject.startswith(job.id)


def test_row_without_its_parent_is_found(catalog: Catalog, lived: Lived) -> None:
    with catalog.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        switch = "PRAGMA foreign_keys={}" if catalog.is_sqlite else "SET foreign_key_checks={}"
        driver.cursor().execute(switch.format(0))
        connection.execute(
            text("DELETE FROM vm_backup_contexts WHERE context_id = :id"),
            {"id": lived.first.vm_backup_context_id},
        )
        connection.commit()
        driver.cursor().execute(switch.format(1))
    assert {each.subject for each in check_database(catalog)} == {
        "backup_jobs.vm_backup_context_id",
        "backup_disks.vm_backup_context_id",
    }


@on_sqlite
def test_index_that_lost_a_row_is_found(catalog: Catalog, lived: Lived) -> None:
    with catalog.write() as session:
        session.execute(text("PRAGMA writable_schema=ON"))
        session.execute(
            text(
                "UPDATE sqlite_master SET sql = 'CREATE INDEX ix_backup_disks_base_disk_id ON "
                "backup_disks (disk_index)' WHERE name = 'ix_backup_disks_base_disk_id'"
            )
        )
    catalog.close()
    found = check_database(catalog)
    assert any("ix_backup_disks_base_disk_id" in each.problem for each in found)


def test_table_that_differs_from_the_models_is_found(catalog: Catalog, lived: Lived) -> None:
    broken = {
        "ALTER TABLE agents ADD COLUMN colour VARCHAR(8)": "agents.colour",
        "DROP INDEX ix_backup_retries_retry_of_job_id"
        + ("" if catalog.is_sqlite else " ON backup_retries"): None,
        "CREATE TABLE notes (id INTEGER)": "table notes is there and should not be",
    }
    if not catalog.is_sqlite:
        broken = {
            "ALTER TABLE agents ADD COLUMN colour VARCHAR(8)": "agents.colour",
            "ALTER TABLE backup_jobs DROP CONSTRAINT ck_backup_jobs_status": "ck_backup_jobs_status",
            "ALTER TABLE backup_jobs MODIFY bytes_read INTEGER NOT NULL": "backup_jobs.bytes_read",
            "ALTER TABLE backup_disks DROP FOREIGN KEY fk_backup_disks_backup_job_id": "backup_job",
            "CREATE TABLE notes (id INTEGER)": "table notes is there and should not be",
        }
    for statement in broken:
        with catalog.engine.begin() as connection:
            connection.execute(text(statement))
    found = check_schema(catalog)
    problems = "\n".join(each.problem for each in found)
    assert len(found) >= len(broken), problems
    for word in broken.values():
        assert word is None or word in problems


def test_schema_of_another_revision_is_one_finding(catalog: Catalog) -> None:
    catalog.downgrade("0001")
    (found,) = check_schema(catalog)
    assert "db upgrade" in found.problem
