"""What our own catalog has already."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.models import Agent, BackupDisk, BackupRepository, VmBackupContext
from hub.legacy.known import KnownCatalog, KnownContext, KnownDisk, KnownSite
from hub.legacy.places import KnownRepository


def known_catalog(session: Session) -> KnownCatalog:
    """Of one moment, when the session's transaction is."""
    repositories = session.execute(
        select(BackupRepository.id, BackupRepository.name, BackupRepository.path).order_by(
            BackupRepository.name
        )
    )
    contexts = session.execute(
        select(
            VmBackupContext.context_id,
            VmBackupContext.site,
            VmBackupContext.instance_uuid,
            VmBackupContext.repository_id,
            VmBackupContext.vm_name,
            VmBackupContext.vmware_vm_id,
        )
    )
    disks = session.execute(
        select(
            BackupDisk.legacy_id,
            BackupDisk.backup_job_id,
            BackupDisk.vm_backup_context_id,
            VmBackupContext.repository_id,
            BackupDisk.qcow2_path,
        )
        .join(VmBackupContext, VmBackupContext.context_id == BackupDisk.vm_backup_context_id)
        .where(BackupDisk.legacy_id.is_not(None))
    )
    return KnownCatalog(
        [KnownRepository(*row) for row in repositories],
        [
            KnownSite(*row)
            for row in session.execute(
                select(Agent.site, Agent.vsphere_address).order_by(Agent.site)
            )
        ],
        {row[0]: KnownContext(*row) for row in contexts},
        {
            legacy_id: KnownDisk(legacy_id, job_id, context_id, repository_id, path or "")
            for legacy_id, job_id, context_id, repository_id, path in disks
            if legacy_id is not None
        },
    )
