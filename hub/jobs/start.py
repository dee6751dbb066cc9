"""Start of a backup: find the VM and the repository, commit the job, tell the agent."""

from dataclasses import dataclass
from typing import Final

import structlog

from hub.catalog.contexts import VmIdentity, sites_of_vm
from hub.catalog.models import BackupJob
from hub.catalog.queries import find_job
from hub.catalog.repositories import find_repository
from hub.catalog.start_job import job_of_request, start_job
from hub.errors import AgentAway, AgentLost, VmAmbiguous, VmNotFound, VmUnidentified
from hub.jobs.end import end_or_owe
from hub.jobs.known_names import require_site
from hub.jobs.parts import Parts
from hub.jobs.repositories import open_repository
from hub.jobs.states import BackupType, Event
from sendense.v1 import agent_session_pb2 as pb
from shared.errors import InvalidArgument

MAX_REQUEST_ID_CHARS: Final = 128
MAX_VM_NAME_CHARS: Final = 255
MAX_VM_ID_CHARS: Final = 64
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


def start_backup(parts: Parts, request: BackupRequest) -> BackupJob:
    """A new pending job, handed to the VM's agent; for a repeated request id, its job.

    Raises InvalidArgument, SiteNotFound, VmNotFound, VmAmbiguous, VmUnidentified, AgentAway,
    RepositoryNotFound, NoDefaultRepository, RepositoryUnusable, BackupRunning.
    """
    if not request.vm:
        raise InvalidArgument("vm", "name a VM")
    if len(request.request_id) > MAX_REQUEST_ID_CHARS:
        raise InvalidArgument("request_id", f"has more than {MAX_REQUEST_ID_CHARS} characters")
    with parts.catalog.read() as session:
        repeated = job_of_request(session, request.request_id)
        if repeated is not None:
            _require_same_vm(repeated, request)
            return find_job(session, repeated.id, with_disks=True)
        repository = find_repository(session, request.repository)
    vm = _find_vm(parts, request)
    open_repository(repository).check_writable()
    with parts.catalog.write() as session:
        started = start_job(
            session,
            vm=vm,
            repository_id=repository.id,
            requested_type=request.backup_type,
            quiesce=request.quiesce,
            request_id=request.request_id,
            now=parts.now(),
        )
    job = started.job
    if not started.is_new:
        _require_same_vm(job, request)
        with parts.catalog.read() as session:
            return find_job(session, job.id, with_disks=True)
    # Only now, with the row committed, may anybody else hear of the job.
    parts.metrics.jobs_started.inc()
    _log.info("job_started", job_id=job.id, vm=vm.name, site=vm.site, repository=repository.name)
    command = pb.StartJob(
        job_id=job.id,
        vmware_vm_id=vm.moref,
        instance_uuid=vm.instance_uuid,
        vm_name=vm.name,
        quiesce=request.quiesce,
    )
    if not parts.agents.send(vm.site, pb.SessionResponse(start_job=command)):
        end_or_owe(parts, job.id, Event.FAILED, AgentLost(vm.site))
        raise AgentAway(vm.site)
    parts.board.changed(job.id)
    with parts.catalog.read() as session:
        return find_job(session, job.id, with_disks=True)


def _find_vm(parts: Parts, request: BackupRequest) -> VmIdentity:
    """The VM, at a connected site."""
    found = parts.agents.find_vm(request.vm, request.site)
    if found is None:
        # Backed up before, but its site did not report since the hub started?
        with parts.catalog.read() as session:
            sites = sites_of_vm(session, request.vm, request.site)
        away = [site for site in sites if not parts.agents.presence(site).connected]
        if len(away) > 1:
            raise VmAmbiguous(request.vm, away)
        if away:
            raise AgentAway(away[0])
        require_site(parts, request.site)
        raise VmNotFound(request.vm, request.site)
    if not found.agent_connected:
        raise AgentAway(found.site)
    if max(len(found.instance_uuid), len(found.vmware_vm_id)) > MAX_VM_ID_CHARS:
        raise VmUnidentified(found.name, f"its ids have more than {MAX_VM_ID_CHARS} characters")
    return VmIdentity(
        site=found.site,
        instance_uuid=found.instance_uuid,
        moref=found.vmware_vm_id,
        name=found.name[:MAX_VM_NAME_CHARS],
    )


def _require_same_vm(job: BackupJob, request: BackupRequest) -> None:
    """Raises InvalidArgument when a repeated request id was used for another VM."""
    context = job.context
    names = (context.vm_name, context.vmware_vm_id, context.instance_uuid)
    if request.vm not in names and request.vm.lower() != context.instance_uuid.lower():
        raise InvalidArgument("request_id", f"started {job.id} of VM {context.vm_name!r}")
