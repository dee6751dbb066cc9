"""An empty catalog gets the estate and its history, in bulk, with all its constraints on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, insert, text

from bench.catalog.engines import Engine
from bench.catalog.estate import NOW, Estate, Machine, make_estate
from bench.catalog.history import DISK_COLUMNS, JOB_COLUMNS, History, Row
from hub.catalog.agents import AgentFacts, record_registration
from hub.catalog.models import BackupRepository, VmBackupContext

# Days that one transaction writes.
DAYS_AT_ONCE: Final = 5


@dataclass(frozen=True, slots=True)
class Filled:
    """What is there."""

    estate: Estate
    jobs: int
    disks: int


def fill(engine: Engine, disk_rows: int, folder: Path, told: Callable[[int], None]) -> Filled:
    """Insert about `disk_rows` disks and all that belongs to them; `told` hears how many."""
    estate = make_estate(disk_rows)
    history = History(estate, disk_rows)
    _places(engine, estate)
    write = _load_data(folder) if engine.name == "mariadb" else _execute_many
    jobs: list[Row] = []
    disks: list[Row] = []
    for number, day in enumerate(history.days(), 1):
        jobs += day.jobs
        disks += day.disks
        if number % DAYS_AT_ONCE == 0:
            _write(engine, write, jobs, disks)
            told(history.disk_rows)
            jobs, disks = [], []
    _write(engine, write, jobs, disks)
    _counters(engine, estate.machines)
    told(history.disk_rows)
    return Filled(estate, history.jobs, history.disk_rows)


Writer = Callable[[Connection, str, Sequence[str], Sequence[Row]], None]


def _write(engine: Engine, write: Writer, jobs: Sequence[Row], disks: Sequence[Row]) -> None:
    with engine.catalog.write() as session:
        write(session.connection(), "backup_jobs", JOB_COLUMNS, jobs)
        write(session.connection(), "backup_disks", DISK_COLUMNS, disks)


def _execute_many(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    marks = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
    if rows:
        connection.exec_driver_sql(statement, list(rows))


def _load_data(folder: Path) -> Writer:
    """The server reads a file: several times as quick as statements with values in them."""

    def write(
        connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        file = folder / f"{table}.tsv"
        with file.open("w") as lines:
            for row in rows:
                lines.write("\t".join("\\N" if v is None else str(v) for v in row) + "\n")
        connection.exec_driver_sql(
            f"LOAD DATA INFILE '{file}' INTO TABLE {table} CHARACTER SET utf8mb4 "
            f"({', '.join(columns)})"
        )
        file.unlink()

    return write


def _places(engine: Engine, estate: Estate) -> None:
    """Repositories, agents and contexts."""
    begin = NOW.replace(year=NOW.year - 1)
    with engine.catalog.write() as session:
        session.execute(
            insert(BackupRepository),
            [
                {
                    "id": name,
                    "name": name,
                    "path": f"/srv/{name}",
                    "is_default": number == 0,
                    "created_at": begin,
                }
                for number, name in enumerate(estate.repositories)
            ],
        )
        for site in estate.sites:
            facts = AgentFacts(site, f"agent.{site}", "0.1.0", f"vc.{site}", "vCenter", "", "8.0.3")
            record_registration(session, facts, begin)
        session.execute(insert(VmBackupContext), [_context(one) for one in estate.machines])


def _context(one: Machine) -> dict[str, Any]:
    return {
        "context_id": one.context_id,
        "vm_name": one.name,
        "vmware_vm_id": one.moref,
        "instance_uuid": one.instance_uuid,
        "site": one.site,
        "repository_id": one.repository_id,
        "created_at": one.created_at,
    }


def _counters(engine: Engine, machines: Sequence[Machine]) -> None:
    """What the rules would have counted."""
    statement = text(
        "UPDATE vm_backup_contexts SET total_backups_run = :runs, successful_backups = :done, "
        "failed_backups = :failed, restore_point_count = :done, bytes_stored = :stored, "
        "last_backup_id = :last_id, last_backup_type = :last_type, last_backup_at = :last_at "
        "WHERE context_id = :context_id"
    )
    with engine.catalog.write() as session:
        session.execute(
            statement,
            [
                {
                    "context_id": one.context_id,
                    "runs": one.runs,
                    "done": one.successful,
                    "failed": one.failed,
                    "stored": one.stored_bytes,
                    "last_id": one.last_id,
                    "last_type": one.last_type,
                    "last_at": None if one.last_at is None else one.last_at.replace(tzinfo=None),
                }
                for one in machines
            ],
        )
