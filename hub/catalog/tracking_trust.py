"""Whether a context's changed block tracking is believed: lost by one miss, won back by a look at all.

A miss means that restore points may lack changes, and that increments on them would
go on lacking these. It is the VM's tracking that is wrong, so all contexts of the VM
lose trust, in whichever repository. In each of them every disk is compared in full, or
read in full, once; what was backed up before stays suspect as a base, also when what
came after is deleted.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from hub.catalog.contexts import lock_context_of, lock_contexts_of_vm
from hub.catalog.models import BackupJob, VmBackupContext, WarningFacts
from hub.jobs.states import ReadMethod

# Of these, no byte rests on what tracking says.
READ_WHOLE: Final = (ReadMethod.ALLOCATED, ReadMethod.COMPARED)
# The agent's warning of a miss. It may be all that is heard of one: the disk's upload
# need not have begun when its job failed.
MISSED_CHANGES: Final = "CBT_MISSED_CHANGES"


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


def tells_of_a_miss(warnings: Iterable[WarningFacts]) -> bool:
    """Whether a job's agent found that tracking had missed changes."""
    return any(warning["code"] == MISSED_CHANGES for warning in warnings)


def lock_trust(session: Session, job_id: str, *, missed: bool) -> Sequence[str]:
    """Lock the job's context, after a `missed` change all of its VM; their ids. Raises JobNotFound."""
    if missed:
        return lock_contexts_of_vm(session, job_id)
    return [lock_context_of(session, job_id)]


def distrust_tracking(
    session: Session, context_ids: Sequence[str], job_id: str, now: datetime
) -> None:
    """The job found a cluster that differs although tracking called it unchanged.

    `context_ids` are all of its VM, as `lock_trust` locked them.
    """
    session.execute(
        update(VmBackupContext)
        .where(VmBackupContext.context_id.in_(context_ids))
        .values(
            tracking_distrusted_since=func.coalesce(VmBackupContext.tracking_distrusted_since, now),
            tracking_distrusted_job_id=job_id,
        )
        .execution_options(synchronize_session=False)
    )


def restore_trust(session: Session, job: BackupJob) -> None:
    """The job, `job.disks` loaded, is being completed: end the distrust if it read every disk whole.

    The job that found the miss does not: it may have believed tracking for other
    disks. Other contexts of the VM have points of their own to look at. The caller
    holds the context's lock.
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
