"""The old catalog is read as it is, from either engine, and cannot be changed by mistake."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from hub.catalog.engine import Catalog
from hub.catalog.legacy import read
from hub.catalog.legacy.read import read_old_catalog
from hub.legacy.errors import OldCatalogUnavailable
from hub.legacy.old_catalog import understand
from hub.legacy.tables import JOBS
from shared.errors import ConfigurationError
from tests.mariadb_server import MariadbServer
from tests.unit.hub.legacy.old_system import FIRST, OldSystem, disk_id

BOTH = pytest.mark.parametrize(
    "engine_name", ["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)


@BOTH
def test_values_come_as_they_are(old: OldSystem) -> None:
    old.add_row(0, 0, Path("/x/é.qcow2"), full=True, parent=None, vm="数据库-🐘")
    old.save()
    (disk,) = understand(read_old_catalog(old.url)).disks
    assert disk.legacy_id == disk_id(0, 0, "数据库-🐘")
    assert (disk.path, disk.disk_index) == ("/x/é.qcow2", 0)
    assert disk.times.created_at == FIRST


@BOTH
def test_nothing_can_be_written_through_the_connection(old: OldSystem) -> None:
    old.save()
    engine = read._engine(read._parsed(old.url))
    try:
        with engine.connect() as connection, pytest.raises(Exception, match=r"(?i)read.?only"):
            connection.execute(text("DELETE FROM backup_jobs"))
    finally:
        engine.dispose()


@pytest.mark.mariadb
def test_times_of_a_zone_and_dates_of_zeros(mariadb: MariadbServer) -> None:
    with mariadb.database() as url:
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                for statement in (
                    "SET SESSION time_zone = '+05:00', sql_mode = ''",
                    "CREATE TABLE backup_jobs (id VARCHAR(64), disk_id INT, vm_name TEXT, "
                    "repository_id TEXT, status TEXT, created_at TIMESTAMP NULL, "
                    "completed_at DATETIME)",
                    "INSERT INTO backup_jobs VALUES ('a', 0, 'web', 'r', 'completed', "
                    "'2025-10-08 17:00:00', '0000-00-00 00:00:00')",
                ):
                    connection.execute(text(statement))
        finally:
            engine.dispose()
        (disk,) = understand(read_old_catalog(url)).disks
    assert disk.times.created_at == datetime(2025, 10, 8, 12, tzinfo=UTC)
    assert disk.times.completed_at is None
    assert disk.notes == ("its completed_at '0000-00-00 00:00:00' is no time",)
    assert not disk.problem


@BOTH
def test_a_catalog_of_ours_is_refused(our_catalog: Catalog) -> None:
    url = our_catalog.engine.url.render_as_string(hide_password=False)
    with pytest.raises(ConfigurationError, match="is a catalog of this system"):
        read_old_catalog(url)


@BOTH
def test_a_database_without_the_table_is_refused(database: Callable[[str], str]) -> None:
    with pytest.raises(ConfigurationError, match="has no table backup_jobs"):
        read_old_catalog(database("empty"))


def test_a_table_without_ids_is_refused(old: OldSystem) -> None:
    del old.columns[JOBS]["id"]
    old.save()
    with pytest.raises(ConfigurationError, match="has no column id"):
        read_old_catalog(old.url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("no url", "is not a database URL"),
        ("postgresql://h/d", "postgresql is no catalog database"),
        ("sqlite://", "there is no file"),
        ("sqlite:////nowhere/old.db", "there is no file /nowhere/old.db"),
    ],
)
def test_url_that_leads_nowhere_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        read_old_catalog(url)


def test_server_that_is_away_is_told_without_the_password(tmp_path: Path) -> None:
    url = f"mysql+pymysql://root:secret@localhost/old?unix_socket={tmp_path / 's'}"
    with pytest.raises(OldCatalogUnavailable) as caught:
        read_old_catalog(url)
    assert "secret" not in str(caught.value) and "root:***@localhost/old" in str(caught.value)


def test_mysql_without_a_drivers_name_is_read_by_pymysql(tmp_path: Path) -> None:
    with pytest.raises(OldCatalogUnavailable):
        read_old_catalog(f"mysql://root@localhost/old?unix_socket={tmp_path / 's'}")


def test_other_tables_and_columns_are_ignored_and_missing_ones_done_without(
    old: OldSystem,
) -> None:
    old.columns["vm_groups"] = {"id": "INTEGER"}
    old.tables["vm_groups"] = [{"id": 1}]
    old.columns[JOBS] = {
        name: kind
        for name, kind in old.columns[JOBS].items()
        if name in ("id", "disk_id", "vm_name", "repository_id", "policy_id")
    }
    for name in ("vm_backup_contexts", "backup_disks", "backup_repositories"):
        del old.columns[name]
    old.add_row(0, 0, Path("/x"), full=True, parent=None)
    old.save()
    found = understand(read_old_catalog(old.url))
    assert [disk.status for disk in found.disks] == ["completed"]
    assert not found.contexts and not found.repositories
