"""The agent opened a job: rows for its disks, a plan in return."""

from collections.abc import Sequence

import structlog

from hub.catalog.bases import FrozenDisk
from hub.catalog.models import WarningFacts
from hub.catalog.open_job import open_job
from hub.catalog.queries import find_job
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.jobs.states import Consistency

_log = structlog.get_logger(__name__)


def open_backup(
    parts: Parts,
    job_id: str,
    *,
    disks: Sequence[FrozenDisk],
    snapshot: str,
    other_snapshots: Sequence[str],
    consistency: Consistency | None,
    warnings: Sequence[WarningFacts],
) -> list[tuple[int, str | None]]:
    """Disk indexes, each with the change id of its base; None means full.

    Repeating it answers the same. Raises JobNotFound, JobEnded, NoDisks,
    ProtocolViolation, RepositoryUnusable.
    """
    with parts.catalog.read() as session:
        repository = open_repository(find_job(session, job_id).context.repository)
    with parts.catalog.write() as session:
        rows = open_job(
            session,
            job_id,
            disks=disks,
            snapshot=snapshot,
            other_snapshots=other_snapshots,
            consistency=consistency,
            warnings=warnings,
            layer_exists=lambda path: (repository.path / path).is_file(),
            now=parts.now(),
        )
        plan = [
            (row.disk_index, None if row.base is None else row.base.disk_change_id) for row in rows
        ]
    _log.info(
        "job_opened",
        job_id=job_id,
        disks=len(plan),
        incremental=sum(base is not None for _, base in plan),
    )
    parts.board.changed(job_id)
    return plan
