"""The change id that the next increment of a VM's disk would build on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.catalog.bases import last_completed_job
from hub.catalog.contexts import VmIdentity, find_context_of
from hub.catalog.models import BackupDisk, BackupRepository, VmBackupContext
from hub.catalog.repositories import find_repository
from hub.errors import ChangeIdNotFound, TwinsAmbiguous, VmAmbiguous, VmUnheardOf


@dataclass(frozen=True, slots=True)
class DiskChangeId:
    """A disk of its context's last completed job; `change_id` is empty when it was not tracked."""

    change_id: str
    context_id: str
    job_id: str
    disk_id: int
    vmware_disk_key: int
    disk_uuid: str
    completed_at: datetime | None


def change_id_of(
    session: Session, identity: VmIdentity, *, vm: str, repository: str, disk_index: int
) -> DiskChangeId:
    """The disk's change id in the VM's context, as its next backup would find that.

    `vm` is what the VM was asked for as; `repository` "" means the default one.
    Raises RepositoryNotFound, NoDefaultRepository, ChangeIdNotFound.
    """
    row = find_repository(session, repository)
    context = find_context_of(session, identity, row.id)
    if context is None:
        raise _never_backed_up(vm, disk_index, row)
    return _of_context(session, context, vm, disk_index)


def change_id_by_word(
    session: Session, *, vm: str, site: str, repository: str, disk_index: int
) -> DiskChangeId:
    """The disk's change id where only contexts tell which VM is meant.

    `vm` is a name, moref or instance uuid, as the VM was backed up; `site` "" means
    any, `repository` "" the default one. Raises RepositoryNotFound,
    NoDefaultRepository, VmUnheardOf (no repository has it), VmAmbiguous, ChangeIdNotFound.
    """
    row = find_repository(session, repository)
    contexts = _contexts(session, vm, site)
    if not contexts:
        raise VmUnheardOf(vm, site)
    here = [context for context in contexts if context.repository_id == row.id]
    if not here:
        raise _never_backed_up(vm, disk_index, row)
    if len(here) > 1:
        raise _ambiguous(vm, here)
    return _of_context(session, here[0], vm, disk_index)


def _of_context(
    session: Session, context: VmBackupContext, vm: str, disk_index: int
) -> DiskChangeId:
    """By foreign keys: the context's last completed job, its disk. Raises ChangeIdNotFound."""
    job = last_completed_job(session, context.context_id)
    if job is None:
        name = context.repository.name
        raise ChangeIdNotFound(vm, disk_index, f"it has no completed backup in repository {name!r}")
    disks = {disk.disk_index: disk for disk in _disks(session, job.id)}
    disk = disks.get(disk_index)
    if disk is None:
        indexes = ", ".join(str(index) for index in disks)
        raise ChangeIdNotFound(
            vm, disk_index, f"its last completed backup, {job.id}, has the disks {indexes}"
        )
    if job.imported_at is not None or disk.legacy_id is not None:
        raise ChangeIdNotFound(
            vm,
            disk_index,
            f"its last completed backup, {job.id}, was imported: no increment builds on it, "
            "the next backup is a full",
        )
    return DiskChangeId(
        change_id=disk.disk_change_id,
        context_id=disk.vm_backup_context_id,
        job_id=job.id,
        disk_id=disk.id,
        vmware_disk_key=disk.vmware_disk_key,
        disk_uuid=disk.disk_uuid,
        completed_at=disk.completed_at,
    )


def _never_backed_up(vm: str, disk_index: int, repository: BackupRepository) -> ChangeIdNotFound:
    problem = f"it was never backed up into repository {repository.name!r}"
    return ChangeIdNotFound(vm, disk_index, problem)


def _ambiguous(vm: str, contexts: Sequence[VmBackupContext]) -> VmAmbiguous:
    sites = sorted({context.site for context in contexts})
    if len(sites) == len(contexts):
        return VmAmbiguous(vm, sites)
    return TwinsAmbiguous(vm, sites, sorted(context.instance_uuid for context in contexts))


def _contexts(session: Session, vm: str, site: str) -> Sequence[VmBackupContext]:
    """The VM's contexts, in whatever repository."""
    query = select(VmBackupContext).where(
        or_(
            VmBackupContext.vm_name == vm,
            VmBackupContext.vmware_vm_id == vm,
            # Not by a function of the column: that could use no index.
            VmBackupContext.instance_uuid.in_({vm, vm.lower(), vm.upper()}),
        )
    )
    if site:
        query = query.where(VmBackupContext.site == site)
    return session.scalars(query).all()


def _disks(session: Session, job_id: str) -> Sequence[BackupDisk]:
    return session.scalars(
        select(BackupDisk).where(BackupDisk.backup_job_id == job_id).order_by(BackupDisk.disk_index)
    ).all()
