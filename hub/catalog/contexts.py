"""Contexts: one VM in one repository."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from hub.catalog.ids import INSERT_ATTEMPTS, candidates
from hub.catalog.models import BackupJob, VmBackupContext
from hub.errors import CatalogUnavailable, ContextNotFound, JobNotFound

# The instance uuid of a context that was imported without one begins with this.
IMPORTED_UUID: Final = "legacy:"


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
    context = find_context_of(session, vm, repository_id) or _add(session, vm, repository_id, now)
    context.instance_uuid = vm.instance_uuid
    context.vm_name = vm.name
    context.vmware_vm_id = vm.moref
    session.flush()
    return context


def find_context_of(session: Session, vm: VmIdentity, repository_id: str) -> VmBackupContext | None:
    """The VM's context in the repository, as its next backup would find it."""
    return _context_of(session, vm, repository_id) or _imported(session, vm, repository_id)


def _context_of(session: Session, vm: VmIdentity, repository_id: str) -> VmBackupContext | None:
    return session.scalars(
        select(VmBackupContext).where(
            VmBackupContext.site == vm.site,
            VmBackupContext.instance_uuid == vm.instance_uuid,
            VmBackupContext.repository_id == repository_id,
        )
    ).first()


def _imported(session: Session, vm: VmIdentity, repository_id: str) -> VmBackupContext | None:
    """The VM's context of an earlier system, which did not know instance uuids.

    Site, moref and name must all be the VM's, and only one context may have them.
    """
    found = session.scalars(
        select(VmBackupContext).where(
            VmBackupContext.site == vm.site,
            VmBackupContext.repository_id == repository_id,
            VmBackupContext.vm_name == vm.name,
            VmBackupContext.vmware_vm_id == vm.moref,
            VmBackupContext.instance_uuid.startswith(IMPORTED_UUID, autoescape=True),
        )
    ).all()
    return found[0] if vm.moref and len(found) == 1 else None


def _add(session: Session, vm: VmIdentity, repository_id: str, now: datetime) -> VmBackupContext:
    free_ids = (
        candidate
        for candidate in candidates("ctx-backup", vm.name, now)
        if session.get(VmBackupContext, candidate) is None
    )
    for context_id in islice(free_ids, INSERT_ATTEMPTS):
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
        try:
            with session.begin_nested():
                session.add(context)
                session.flush()
        except IntegrityError:
            # Another writer took the id, or added this very context.
            added = _context_of(session, vm, repository_id)
            if added is not None:
                return added
            continue
        return context
    raise CatalogUnavailable("no free context id was found")


def find_context(session: Session, context_id: str) -> VmBackupContext:
    """Raises ContextNotFound."""
    context = session.get(VmBackupContext, context_id)
    if context is None:
        raise ContextNotFound(context_id)
    return context


def context_ids(session: Session, repository_id: str) -> set[str]:
    """Of all contexts in the repository: the names of its folders."""
    query = select(VmBackupContext.context_id).where(VmBackupContext.repository_id == repository_id)
    return set(session.scalars(query))


def lock_context(session: Session, context_id: str) -> None:
    """Hold the context's row until the transaction ends. Raises ContextNotFound.

    Rules that move the rows of a job begin with it: two writers of MariaDB then
    wait here for one another, not for parts of what the other has locked. The
    one write transaction of SQLite needs no lock.
    """
    query = select(VmBackupContext.context_id).where(VmBackupContext.context_id == context_id)
    if session.scalars(query.with_for_update()).first() is None:
        raise ContextNotFound(context_id)


def lock_context_of(session: Session, job_id: str) -> str:
    """`lock_context` for the job's context; its id. Raises JobNotFound."""
    query = select(BackupJob.vm_backup_context_id).where(BackupJob.id == job_id)
    context_id = session.scalars(query).first()
    if context_id is None:
        raise JobNotFound(job_id)
    try:
        lock_context(session, context_id)
    except ContextNotFound as error:
        raise JobNotFound(job_id) from error
    return context_id


def lock_contexts_of_vm(session: Session, job_id: str) -> list[str]:
    """Lock the contexts that the job's VM has in all repositories; their ids. Raises JobNotFound.

    One by one, in the order of their ids, and before any other row: a transaction
    that holds one context's lock and rows never waits for another context's. One that
    is added or adopted meanwhile is not among them: it has nothing yet to build on.
    """
    own = aliased(VmBackupContext)
    found = session.scalars(
        select(VmBackupContext.context_id)
        .join(
            own,
            and_(
                own.site == VmBackupContext.site,
                own.instance_uuid == VmBackupContext.instance_uuid,
            ),
        )
        .join(BackupJob, BackupJob.vm_backup_context_id == own.context_id)
        .where(BackupJob.id == job_id)
    ).all()
    locked: list[str] = []
    for context_id in sorted(found):
        with suppress(ContextNotFound):  # deleted meanwhile
            lock_context(session, context_id)
            locked.append(context_id)
    if not locked:
        raise JobNotFound(job_id)
    return locked


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
