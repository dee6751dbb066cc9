"""Whether a context's changed block tracking is believed: lost by one miss, won back by a look at all.

A miss means that restore points may lack changes, and that increments on them would
go on lacking these. So every disk is compared in full, or read in full, once; what
was backed up before stays suspect as a base, also when what came after is deleted.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from hub.catalog.models import BackupJob, VmBackupContext
from hub.jobs.states import ReadMethod

# Of these, no byte rests on what tracking says.
READ_WHOLE: Final = (ReadMethod.ALLOCATED, ReadMethod.COMPARED)


def tracking_doubt(context: VmBackupContext, last_job: BackupJob) -> str:
    """Why changes since the context's last completed job are not to be asked for, or ""."""
    if context.tracking_distrusted_since is not None:
        return (
            "changed block tracking missed changes, as backup "
            f"{context.tracking_distrusted_job_id} found"
        )
    if last_job.run_number < context.tracking_trusted_from_run:
        return (
            f"the last backup, {last_job.id}, is from before changed block tracking "
            "was found to have missed changes"
        )
    return ""


def distrust_tracking(session: Session, context_id: str, job_id: str, now: datetime) -> None:
    """The job found a cluster that differs although tracking called it unchanged.

    The caller holds the context's lock.
    """
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id == context_id)
        .values(
            tracking_distrusted_since=func.coalesce(VmBackupContext.tracking_distrusted_since, now),
            tracking_distrusted_job_id=job_id,
        )
        .execution_options(synchronize_session=False)
    )


def restore_trust(session: Session, job: BackupJob) -> None:
    """The job, `job.disks` loaded, is being completed: end the distrust if it read every disk whole.

    The job that found the miss does not: it may have believed tracking for other
    disks. The caller holds the context's lock.
    """
    if not all(disk.read_method in READ_WHOLE for disk in job.disks):
        return
    session.execute(
        update(VmBackupContext)
        .where(
            VmBackupContext.context_id == job.vm_backup_context_id,
            VmBackupContext.tracking_distrusted_since.is_not(None),
            VmBackupContext.tracking_distrusted_job_id != job.id,
        )
        .values(
            tracking_distrusted_since=None,
            tracking_distrusted_job_id=None,
            tracking_trusted_from_run=job.run_number,
        )
        .execution_options(synchronize_session=False)
    )
