"""Start of a backup: find the VM and the repository, commit the job, let it wait for its turn."""

from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from hub.catalog.contexts import VmIdentity
from hub.catalog.models import BackupJob, BackupRepository
from hub.catalog.queries import find_job
from hub.catalog.repositories import find_repository
from hub.catalog.start_job import job_of_request, start_job
from hub.errors import RepositoryDisabled
from hub.jobs.asked_vm import find_vm
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.dispatch import hand_out, queue_job
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.jobs.states import BackupType, Status
from shared.errors import InvalidArgument
from shared.fail_points import fail_point

MAX_REQUEST_ID_CHARS: Final = 128
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What a caller asks for; empty strings as in StartBackupRequest."""

    vm: str
    site: str = ""
    repository: str = ""
    backup_type: BackupType | None = None
    request_id: str = ""
    quiesce: bool = False


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to begin; its request id is its alone."""

    vm: VmIdentity
    repository: BackupRepository
    backup_type: BackupType | None
    quiesce: bool
    request_id: str
    retry_of: str = ""


def start_backup(parts: Parts, request: BackupRequest) -> BackupJob:
    """A new pending job, queued for the VM's agent; for a repeated request id, its job.

    Raises InvalidArgument, SiteNotFound, VmNotFound, VmAmbiguous, VmUnidentified,
    AgentDraining, AgentAway, RepositoryNotFound, NoDefaultRepository,
    RepositoryDisabled, RepositoryUnusable, BackupRunning.
    """
    if not request.vm:
        raise InvalidArgument("vm", "name a VM")
    request_id = usable_request_id(request.request_id)
    with parts.turns.turn(f"request {request_id}"):
        with parts.catalog.read() as session:
            repeated = job_of_request(session, request_id)
            if repeated is not None:
                _require_same_vm(repeated, request)
                return find_job(session, repeated.id, with_disks=True)
            repository = find_repository(session, request.repository)
        return begin_backup(
            parts,
            NewJob(
                vm=find_vm(parts, request.vm, request.site),
                repository=repository,
                backup_type=request.backup_type,
                quiesce=request.quiesce,
                request_id=request_id,
            ),
        )


def usable_request_id(request_id: str) -> str:
    """The caller's, or one of the hub's own: with one, a repeated transaction knows its job.

    Raises InvalidArgument.
    """
    if len(request_id) > MAX_REQUEST_ID_CHARS:
        raise InvalidArgument("request_id", f"has more than {MAX_REQUEST_ID_CHARS} characters")
    return request_id or f"hub-{uuid4().hex}"


def begin_backup(parts: Parts, new: NewJob) -> BackupJob:
    """Commit a pending job and queue it for the VM's agent; within the turn of its request.

    It is handed to the agent before this returns if no limit holds it back. Raises
    RepositoryDisabled, RepositoryUnusable, RepositoryNotFound, AgentDraining,
    BackupRunning, JobNotFound (`retry_of` is gone).
    """
    vm, repository = new.vm, new.repository
    if repository.disabled:
        raise RepositoryDisabled(repository.name)
    open_repository(repository).check_writable()
    job = _record(parts, new)
    fail_point("hub.start.committed")
    # Only now, with the row committed, may anybody else hear of the job.
    parts.metrics.jobs_started.inc()
    _log.info("job_started", job_id=job.id, vm=vm.name, site=vm.site, repository=repository.name)
    # It may have ended while the answer to its commit was waited for.
    if job.status is Status.PENDING:
        queue_job(parts, job)
        hand_out(parts)
    return _current(parts, job.id)


@retry_catalog
def _record(parts: Parts, new: NewJob) -> BackupJob:
    """The job of the request. One that is there is this caller's: nobody else had the
    request's turn, and an earlier attempt was committed without an answer."""
    with parts.catalog.write() as session:
        return start_job(
            session,
            vm=new.vm,
            repository_id=new.repository.id,
            requested_type=new.backup_type,
            quiesce=new.quiesce,
            request_id=new.request_id,
            retry_of=new.retry_of,
            now=parts.now(),
        ).job


@retry_catalog
def _current(parts: Parts, job_id: str) -> BackupJob:
    with parts.catalog.read() as session:
        return find_job(session, job_id, with_disks=True)


def _require_same_vm(job: BackupJob, request: BackupRequest) -> None:
    """Raises InvalidArgument when a repeated request id was used for another VM."""
    context = job.context
    names = (context.vm_name, context.vmware_vm_id, context.instance_uuid)
    if request.vm not in names and request.vm.lower() != context.instance_uuid.lower():
        raise InvalidArgument("request_id", f"started {job.id} of VM {context.vm_name!r}")
