"""Which VMs have a restore point: by site and instance uuid, in any repository."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalog.models import VmBackupContext


@dataclass(frozen=True, slots=True)
class LastBackup:
    """The newest restore point of a VM, and when it was completed."""

    job_id: str
    completed_at: datetime | None


def vm_key(site: str, instance_uuid: str) -> tuple[str, str]:
    """Who a VM is. Instance uuids are the same in whatever case they are written."""
    return site, instance_uuid.lower()


def protected_vms(session: Session, site: str = "") -> Mapping[tuple[str, str], LastBackup]:
    """The VMs with a restore point, by `vm_key`; `site` "" means any. One query.

    A VM without an instance uuid is never among them: its backups could not be
    told from another VM's.
    """
    query = select(
        VmBackupContext.site,
        VmBackupContext.instance_uuid,
        VmBackupContext.last_backup_id,
        VmBackupContext.last_backup_at,
    ).where(VmBackupContext.restore_point_count > 0, VmBackupContext.instance_uuid != "")
    if site:
        query = query.where(VmBackupContext.site == site)
    newest: dict[tuple[str, str], LastBackup] = {}
    for of_site, instance_uuid, job_id, completed_at in session.execute(query):
        key = vm_key(of_site, instance_uuid)
        known = newest.get(key)
        if known is None or _is_newer(completed_at, known.completed_at):
            newest[key] = LastBackup(job_id or "", completed_at)
    return newest


def _is_newer(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one > other)
