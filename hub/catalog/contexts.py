"""Contexts: one VM in one repository."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from hub.catalog.ids import candidates
from hub.catalog.models import VmBackupContext
from hub.errors import ContextNotFound


@dataclass(frozen=True, slots=True)
class VmIdentity:
    """A VM as its agent reports it. Site and instance uuid are who it is; the rest may change."""

    site: str
    instance_uuid: str
    moref: str
    name: str


def find_or_add_context(
    session: Session, vm: VmIdentity, repository_id: str, now: datetime
) -> VmBackupContext:
    """The VM's context in the repository, its name and moref brought up to date."""
    context = session.scalars(
        select(VmBackupContext).where(
            VmBackupContext.site == vm.site,
            VmBackupContext.instance_uuid == vm.instance_uuid,
            VmBackupContext.repository_id == repository_id,
        )
    ).first()
    if context is None:
        context_id = next(
            candidate
            for candidate in candidates("ctx-backup", vm.name, now)
            if session.get(VmBackupContext, candidate) is None
        )
        context = VmBackupContext(
            context_id=context_id,
            site=vm.site,
            instance_uuid=vm.instance_uuid,
            repository_id=repository_id,
            vm_name=vm.name,
            vmware_vm_id=vm.moref,
            total_backups_run=0,
            created_at=now,
        )
        session.add(context)
    context.vm_name = vm.name
    context.vmware_vm_id = vm.moref
    session.flush()
    return context


def find_context(session: Session, context_id: str) -> VmBackupContext:
    """Raises ContextNotFound."""
    context = session.get(VmBackupContext, context_id)
    if context is None:
        raise ContextNotFound(context_id)
    return context


def sites_of_vm(session: Session, vm: str, site: str) -> Sequence[str]:
    """Sites where a VM of that name, moref or instance uuid was backed up; `site` "" means any."""
    query = select(VmBackupContext.site).distinct().order_by(VmBackupContext.site)
    query = query.where(
        or_(
            VmBackupContext.vm_name == vm,
            VmBackupContext.vmware_vm_id == vm,
            func.lower(VmBackupContext.instance_uuid) == vm.lower(),
        )
    )
    if site:
        query = query.where(VmBackupContext.site == site)
    return session.scalars(query).all()
