"""The layers of a restore point's disk, and whether their files are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.catalog.models import BackupDisk
from hub.catalog.queries import restorable_chain
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.repository import Repository
from hub.repository.presence import files_problem
from shared.errors import SendenseError


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a chain; `problem` says what is wrong with its files, or ""."""

    disk: BackupDisk
    problem: str


def disk_chain(parts: Parts, job_id: str, disk_index: int) -> list[Layer]:
    """The layers that a disk consists of, newest first.

    Raises JobNotFound, DiskNotFound, NotARestorePoint, ChainDamaged (the rows make
    no chain).
    """
    with parts.catalog.read() as session:
        rows = restorable_chain(session, job_id, disk_index)
    # After the transaction: a slow file system must not hold the catalog.
    return [Layer(row, problem) for row, problem in zip(rows, _problems(rows), strict=True)]


def _problems(rows: Sequence[BackupDisk]) -> list[str]:
    try:
        repository = open_repository(rows[0].job.context.repository)
    except SendenseError as error:
        return [str(error)] * len(rows)
    return [_problem(repository, row) for row in rows]


def _problem(repository: Repository, row: BackupDisk) -> str:
    if not row.qcow2_path:
        return "the catalog names no file"
    return files_problem(repository.path, row.qcow2_path, has_manifest=row.legacy_id is None)
