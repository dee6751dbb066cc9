"""The schema's way up and down, with data, with interruptions, and what is refused on it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from hub.catalog import hub_lock
from hub.catalog.change_schema import downgrade_catalog, upgrade_catalog
from hub.catalog.delete_jobs import delete_job
from hub.catalog.engine import Catalog, newest_revision
from hub.catalog.hub_lock import CatalogTaken, HubLock
from hub.catalog.lists import list_jobs
from hub.catalog.models import BackupRetry, FileRemoval
from hub.catalog.schema import BASE, alembic_config, differences, revisions
from hub.catalog.sqlite_copy import copy_before
from hub.catalog.upload_disk import SamplingFacts
from hub.errors import CatalogUnavailable
from hub.jobs.states import ReadMethod
from shared.errors import ConfigurationError
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.catalog.engines import on_sqlite
from tests.unit.hub.catalog.kept_data import OLDEST, lived, rows, shape
from tests.unit.hub.catalog.story import Story


def test_data_lives_through_a_downgrade_and_an_upgrade(catalog: Catalog, story: Story) -> None:
    lived(story)
    before = rows(catalog)
    # What the completions counted, and what the upgrade will have to find again.
    counted = dict.fromkeys(before["vm_backup_contexts"][0])
    assert {"restore_point_count", "bytes_stored"} <= counted.keys()
    catalog.downgrade(OLDEST)
    assert catalog.revision() == OLDEST
    old = rows(catalog)
    assert "restore_point_count" not in old["vm_backup_contexts"][0]
    assert "file_removals" not in old
    assert rows(catalog, before) == old
    assert all(len(old[table]) == len(before[table]) for table in old)
    catalog.upgrade()
    assert rows(catalog) == before
    points = {row[0]: row[1] for row in _contexts(catalog)}
    assert sorted(points.values()) == [1, 2]
    with catalog.engine.connect() as connection:
        assert differences(connection) == []


def test_chain_of_an_upgraded_catalog_goes_on(catalog: Catalog, story: Story) -> None:
    first = story.whole()
    catalog.downgrade(OLDEST)
    catalog.upgrade()
    second = story.whole()
    assert second.disks[0].base_disk_id == first.disks[0].id
    assert [tuple(row[1:]) for row in _contexts(catalog)] == [(2, 2)]


@pytest.mark.parametrize("revision", [each.name for each in revisions()[:-1]])
def test_downgraded_schema_is_the_one_that_the_older_program_made(
    empty_catalog: Callable[[], Catalog], revision: str
) -> None:
    made, downgraded = empty_catalog(), empty_catalog()
    _upgrade_to(made, revision)
    downgraded.upgrade()
    downgraded.downgrade(revision)
    assert shape(downgraded) == shape(made)


def test_read_method_of_an_upgraded_catalog_is_unknown_and_held_to_its_values(
    catalog: Catalog, story: Story
) -> None:
    job = story.whole()
    assert job.disks[0].read_method is ReadMethod.ALLOCATED
    downgrade_catalog(catalog, "0002", print)
    upgrade_catalog(catalog, print)
    (disk,) = story.job(job).disks
    assert (disk.read_method, disk.read_reason, disk.clusters_missed) == (None, None, 0)
    with (
        pytest.raises(IntegrityError, match="ck_backup_disks_read_method"),
        catalog.write() as session,
    ):
        session.execute(text("UPDATE backup_disks SET read_method = 'guessed'"))
    # Such a disk is a base like any other.
    (again,) = story.whole().disks
    assert (again.base_disk_id, again.read_method) == (disk.id, ReadMethod.CHANGED)


def test_downgrade_that_would_trust_tracking_again_is_refused(
    catalog: Catalog, story: Story
) -> None:
    story.whole()
    lied = story.start()
    story.open(lied)
    story.seal(lied, method=ReadMethod.COMPARED, sampling=SamplingFacts(64, 900, 42, 2))
    story.complete(lied)
    with pytest.raises(ConfigurationError, match="1 VMs whose changed block tracking missed"):
        downgrade_catalog(catalog, "0002", print)
    compared = story.whole()
    assert story.context(compared).tracking_distrusted_since is None
    with catalog.write() as session:
        delete_job(session, compared.id, cascade=False, now=story.now())
    with pytest.raises(ConfigurationError, match="1 VMs whose last backup may lack changes"):
        downgrade_catalog(catalog, "0002", print)
    story.whole()
    downgrade_catalog(catalog, "0002", print)
    assert catalog.revision() == "0002"


def test_downgrade_to_nothing_leaves_an_empty_database(catalog: Catalog) -> None:
    catalog.downgrade(BASE)
    assert catalog.revision() is None
    assert catalog.schema_state().tables == set()
    catalog.upgrade()
    catalog.require_newest()


def test_catalog_of_an_older_program_is_refused_naming_the_command(catalog: Catalog) -> None:
    catalog.downgrade(OLDEST)
    with pytest.raises(ConfigurationError, match=f"at revision {OLDEST}.*db upgrade"):
        catalog.require_newest()


def test_catalog_of_a_newer_program_is_refused_naming_that_program(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    for refused in (catalog.require_newest, catalog.upgrade):
        with pytest.raises(ConfigurationError, match=r"0999.*newer sendense-hub.*install that one"):
            refused()
    with pytest.raises(ConfigurationError, match="newer sendense-hub"):
        downgrade_catalog(catalog, OLDEST, print)
    assert catalog.revision() == "0999"


def test_catalog_that_lacks_a_column_of_its_revision_is_refused(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(text("ALTER TABLE agents DROP COLUMN draining"))
    with pytest.raises(ConfigurationError, match=r"lacks agents\.draining.*db check"):
        catalog.require_newest()


@pytest.mark.parametrize(
    ("table", "index"),
    [
        ("backup_jobs", "ix_backup_jobs_listed"),
        ("vm_backup_contexts", "ix_vm_backup_contexts_named"),
    ],
)
def test_catalog_that_lacks_an_index_of_its_revision_is_refused_and_mended_as_told(
    catalog: Catalog, story: Story, tmp_path: Path, table: str, index: str
) -> None:
    """As after a downgrade that broke off on MariaDB."""
    story.whole()
    copy = copy_before(catalog, "test", NOON) if catalog.is_sqlite else tmp_path
    of_table = "" if catalog.is_sqlite else f" ON {table}"
    with catalog.engine.begin() as connection:
        connection.execute(text(f"DROP INDEX {index}{of_table}"))
    told = "run an interrupted sendense-hub db downgrade again, then db upgrade.*db check"
    if catalog.is_sqlite:
        told = "it was changed by hand: put back a copy of it.*db check"
    with pytest.raises(ConfigurationError, match=rf"lacks {table}\.{index}: {told}"):
        catalog.require_newest()
    if table == "backup_jobs":
        # A hub that serves already says it, too, and nobody tries again.
        with (
            pytest.raises(ConfigurationError, match=rf"{index}.*stop the hub, {told}") as caught,
            catalog.read() as session,
        ):
            list_jobs(session)
        assert not caught.value.retryable
    if catalog.is_sqlite:
        catalog.close()
        copy.replace(catalog.file)
    else:
        downgrade_catalog(catalog, OLDEST, print)
        upgrade_catalog(catalog, print)
    catalog.require_newest()
    with catalog.read() as session:
        assert len(list_jobs(session)[0]) == 1


def test_database_of_another_program_is_left_alone(empty_catalog: Callable[[], Catalog]) -> None:
    catalog = empty_catalog()
    with catalog.write() as session:
        session.execute(text("CREATE TABLE backup_jobs (id INTEGER, disk_id INTEGER)"))
    before = shape(catalog)
    for refused in (catalog.require_newest, catalog.upgrade):
        with pytest.raises(ConfigurationError, match=r"no sendense-hub made.*of its own"):
            refused()
    assert shape(catalog) == before


def test_upgrade_and_downgrade_are_refused_while_a_hub_serves(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_lock, "WAIT_S", 0)
    with HubLock(catalog):
        with pytest.raises(CatalogTaken, match="another sendense-hub"):
            downgrade_catalog(catalog, OLDEST, print)
        assert not upgrade_catalog(catalog, print)  # nothing to do needs no lock
    downgrade_catalog(catalog, OLDEST, print)
    with HubLock(catalog), pytest.raises(CatalogTaken):
        upgrade_catalog(catalog, print)
    assert catalog.revision() == OLDEST


def test_downgrade_that_would_lose_something_is_refused_with_a_list(
    catalog: Catalog, story: Story
) -> None:
    job, again = story.whole(), story.whole()
    with catalog.write() as session:
        session.execute(text("UPDATE backup_repositories SET disabled = 1 WHERE name = 'other'"))
        session.execute(
            text("UPDATE backup_jobs SET imported_at = :now WHERE id = :id"),
            {"now": "2025-10-08 12:00:00.000000", "id": job.id},
        )
        session.add(BackupRetry(job_id=again.id, retry_of_job_id=job.id))
        session.add(
            FileRemoval(repository_id="repo-other", job_id="gone", path="a/b", requested_at=NOON)
        )
        _add_draining_agent(session.connection())
    before = rows(catalog)
    with pytest.raises(ConfigurationError) as refused:
        downgrade_catalog(catalog, OLDEST, print)
    for word in (
        "1 files or folders of deleted backups",
        "1 imported backups",
        "1 disabled repositories: an older hub would write into them",
        "1 agents being drained",
        "1 notes of which backup",
        "--force",
    ):
        assert word in str(refused.value)
    assert rows(catalog) == before
    said: list[str] = []
    downgrade_catalog(catalog, OLDEST, said.append, force=True)
    assert catalog.revision() == OLDEST
    assert "lost  1 imported backups" in said


def test_downgrade_to_nothing_is_refused_while_there_are_jobs(
    catalog: Catalog, story: Story
) -> None:
    story.fail(story.start())
    with pytest.raises(ConfigurationError, match="it has 1 jobs"):
        downgrade_catalog(catalog, BASE, print, force=True)
    assert catalog.revision() == newest_revision()


@pytest.mark.parametrize("target", ["0999", "head", newest_revision()])
def test_downgrade_to_what_is_not_older_is_refused(catalog: Catalog, target: str) -> None:
    with pytest.raises(ConfigurationError, match="REVISION"):
        downgrade_catalog(catalog, target, print)


@on_sqlite
def test_sqlite_catalog_is_copied_before_its_schema_changes(
    catalog: Catalog, story: Story, tmp_path: Path
) -> None:
    story.whole()
    whole = rows(catalog)
    catalog.file.chmod(0o640)
    moments = [datetime(2025, 10, 8, 12, minute, tzinfo=UTC) for minute in (1, 2)]
    said: list[str] = []
    downgrade_catalog(catalog, OLDEST, said.append, now=lambda: moments[0])
    assert upgrade_catalog(catalog, said.append, now=lambda: moments[1])
    copies = [line.removeprefix("copy  ") for line in said if line.startswith("copy")]
    assert copies == [
        f"{catalog.file}.before-{OLDEST}-20251008T120100.000000Z",
        f"{catalog.file}.before-{newest_revision()}-20251008T120200.000000Z",
    ]
    for path, revision in zip(copies, (newest_revision(), OLDEST), strict=True):
        assert Path(path).stat().st_mode & 0o777 == 0o640
        copy = Catalog(f"sqlite:///{path}")
        assert copy.revision() == revision
        assert rows(copy, whole)["backup_jobs"] == rows(catalog, rows(copy))["backup_jobs"]
        copy.close()
    assert not list(tmp_path.glob("*.partial"))


@on_sqlite
def test_upgrade_without_room_for_the_copy_changes_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.downgrade(OLDEST)

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CatalogUnavailable, match=r"no copy was made.*No space left"):
        upgrade_catalog(catalog, print)
    assert catalog.revision() == OLDEST
    assert not list(catalog.file.parent.glob("*.before-*"))


def _upgrade_to(catalog: Catalog, revision: str) -> None:
    """As a program did that knew nothing newer."""
    with catalog.engine.begin() as connection:
        command.upgrade(alembic_config(connection, print), revision)


def _contexts(catalog: Catalog) -> list[tuple[Any, ...]]:
    with catalog.engine.connect() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                text(
                    "SELECT context_id, restore_point_count, bytes_stored FROM vm_backup_contexts "
                    "ORDER BY context_id"
                )
            )
        ]


def _add_draining_agent(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO agents (id, site, hostname, version, vsphere_address, vsphere_full_name, "
            "vsphere_api_type, vsphere_api_version, created_at, draining) VALUES "
            "('agent-1', 'lab', '', '', '', '', '', '', '2025-10-08 12:00:00.000000', 1)"
        )
    )
