"""The hub's errors, as callers are told of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from hub.jobs.states import LIVE
from shared.errors import SendenseError


@dataclass(eq=False)
class CatalogUnavailable(SendenseError):
    """The catalog's database cannot be used now."""

    code: ClassVar[str] = "CATALOG_UNAVAILABLE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the catalog cannot be used now, try again later: {problem}"

    problem: str


@dataclass(eq=False)
class VmNotFound(SendenseError):
    """No agent reports such a VM."""

    code: ClassVar[str] = "VM_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "no connected site has a VM {vm!r}; sendense vm list shows those known"

    vm: str
    site: str = ""

    def __str__(self) -> str:
        if not self.site:
            return super().__str__()
        return f"site {self.site!r} has no VM {self.vm!r}; sendense vm list shows those known"


@dataclass(eq=False)
class VmUnheardOf(VmNotFound):
    """Neither does an agent report such a VM, nor was one backed up."""

    text: ClassVar[str] = (
        "no VM {vm!r} was backed up, and no agent reports one; sendense context list shows "
        "the VMs that were backed up, sendense vm list those that agents report"
    )

    def __str__(self) -> str:
        if not self.site:
            return super().__str__()
        return (
            f"no VM {self.vm!r} of site {self.site!r} was backed up, and its agent reports none; "
            "sendense context list shows the VMs that were backed up"
        )


@dataclass(eq=False)
class SiteNotFound(SendenseError):
    """No agent ever registered for the site that a request names."""

    code: ClassVar[str] = "SITE_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "there is no site {site!r}; sendense agent list shows all"

    site: str


@dataclass(eq=False)
class VmAmbiguous(SendenseError):
    """Several VMs answer to the name."""

    code: ClassVar[str] = "VM_AMBIGUOUS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "several VMs match {vm!r}, at these sites: {sites}; name the site, "
        "or the VM by its instance uuid"
    )

    vm: str
    sites: Sequence[str]

    def __str__(self) -> str:
        return self.text.format(vm=self.vm, sites=", ".join(self.sites))


@dataclass(eq=False)
class VmUnidentified(SendenseError):
    """Backups of the VM could not be told from another VM's."""

    code: ClassVar[str] = "VM_UNIDENTIFIED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "VM {vm!r} cannot be told from others of its site: {problem}; give it an instance uuid of its own"
    )

    vm: str
    problem: str


@dataclass(eq=False)
class AgentAway(SendenseError):
    """The VM is known, but its site's agent is not connected."""

    code: ClassVar[str] = "AGENT_AWAY"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site!r} is not connected; start it and try again"

    site: str


@dataclass(eq=False)
class AgentRemoved(AgentAway):
    """The VM was backed up before, but its site has no agent any more."""

    text: ClassVar[str] = (
        "site {site!r} has no agent any more: it was removed; "
        "start an agent with that site's name, then try again"
    )


@dataclass(eq=False)
class RepositoryNotFound(SendenseError):
    """No repository has that name or id."""

    code: ClassVar[str] = "REPOSITORY_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "there is no repository {repository!r}; sendense repository list shows all"
    )

    repository: str


@dataclass(eq=False)
class NoDefaultRepository(SendenseError):
    """No repository was named and none is the default."""

    code: ClassVar[str] = "REPOSITORY_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "no repository was named and none is the default one; name one, make one the default "
        "with sendense repository set-default, or make a first one with sendense repository create"
    )


@dataclass(eq=False)
class RepositoryExists(SendenseError):
    """A repository has that name or folder."""

    code: ClassVar[str] = "REPOSITORY_EXISTS"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    text: ClassVar[str] = "repository {name!r} exists, in {path}"

    name: str
    path: str


@dataclass(eq=False)
class BackupRunning(SendenseError):
    """The context has a job that has not ended."""

    code: ClassVar[str] = "BACKUP_RUNNING"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    text: ClassVar[str] = (
        "backup {job_id} of this VM into this repository has not ended: wait for its end, "
        "or cancel it with sendense job cancel {job_id}"
    )

    job_id: str
    context_id: str


@dataclass(eq=False)
class JobNotFound(SendenseError):
    """The catalog has no such job."""

    code: ClassVar[str] = "JOB_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "there is no backup job {job_id!r}; sendense job list shows all"

    job_id: str


@dataclass(eq=False)
class DiskNotFound(SendenseError):
    """The job has no disk of that index."""

    code: ClassVar[str] = "DISK_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "backup job {job_id!r} has no disk {disk_index}; sendense disk list {job_id} shows its disks"
    )

    job_id: str
    disk_index: int


@dataclass(eq=False)
class ContextNotFound(SendenseError):
    """The catalog has no such context."""

    code: ClassVar[str] = "CONTEXT_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "there is no backup context {context_id!r}; sendense context list shows all"
    )

    context_id: str


@dataclass(eq=False)
class AgentNotFound(SendenseError):
    """No agent ever registered for the site."""

    code: ClassVar[str] = "AGENT_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = (
        "site {site!r} has no agent: none registered, or it was removed; "
        "sendense agent list shows all"
    )

    site: str


@dataclass(eq=False)
class NotARestorePoint(SendenseError):
    """The job did not complete, so nothing can be restored from it."""

    code: ClassVar[str] = "NOT_A_RESTORE_POINT"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} is {job_status}, so it is no restore point; "
        "sendense job list --status completed shows those that are"
    )

    job_id: str
    job_status: str

    def __str__(self) -> str:
        if self.job_status not in LIVE:
            return super().__str__()
        return (
            f"backup job {self.job_id} is {self.job_status}: it becomes a restore point when it "
            f"completes; sendense job watch {self.job_id} shows when that is"
        )


@dataclass(eq=False)
class ChainDamaged(SendenseError):
    """The layers of a disk do not add up to what its row says."""

    code: ClassVar[str] = "LAYER_DAMAGED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    text: ClassVar[str] = "layer {path} cannot be restored: {problem}"

    path: str
    problem: str


@dataclass(eq=False)
class JobEnded(SendenseError):
    """The job has ended; nothing more is taken for it."""

    code: ClassVar[str] = "JOB_ENDED"
    status: ClassVar[StatusCode] = StatusCode.ABORTED
    text: ClassVar[str] = "backup job {job_id} has ended: {job_status}"

    job_id: str
    job_status: str


@dataclass(eq=False)
class JobNotEnded(SendenseError):
    """What is to be deleted has, or is, a job that has not ended."""

    code: ClassVar[str] = "JOB_NOT_ENDED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} has not ended: wait for its end or cancel it, then delete again"
    )

    job_id: str


@dataclass(eq=False)
class JobHasDependants(SendenseError):
    """Later jobs build on the job; without it they could not be restored."""

    code: ClassVar[str] = "JOB_HAS_DEPENDANTS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "later backups build on {job_id}: {dependants}; delete them first, or all together with "
        'sendense job delete --cascade {job_id} ("cascade": true in a request)'
    )

    job_id: str
    dependants: Sequence[str]  # oldest first

    def __str__(self) -> str:
        return self.text.format(job_id=self.job_id, dependants=", ".join(self.dependants))


@dataclass(eq=False)
class DiskNotUploadable(SendenseError):
    """The disk's row is in no state that takes an upload."""

    code: ClassVar[str] = "DISK_NOT_UPLOADABLE"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "disk {disk_index} of {job_id} takes no upload: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class UploadActive(SendenseError):
    """The disk is being uploaded already."""

    code: ClassVar[str] = "UPLOAD_ACTIVE"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    text: ClassVar[str] = "disk {disk_index} of {job_id} is being uploaded already"

    job_id: str
    disk_index: int


@dataclass(eq=False)
class UploadTruncated(SendenseError):
    """The upload ended early, or its totals are not what arrived."""

    code: ClassVar[str] = "UPLOAD_TRUNCATED"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "upload of disk {disk_index} of {job_id} is incomplete: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class FrameRefused(SendenseError):
    """A frame breaks a rule of the format."""

    code: ClassVar[str] = "FRAME_INVALID"
    status: ClassVar[StatusCode] = StatusCode.INVALID_ARGUMENT
    text: ClassVar[str] = "disk {disk_index} of {job_id}: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class FrameDamaged(SendenseError):
    """A frame's bytes changed on their way."""

    code: ClassVar[str] = "FRAME_CORRUPT"
    status: ClassVar[StatusCode] = StatusCode.DATA_LOSS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "disk {disk_index} of {job_id}: {problem}"

    job_id: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class SiteTaken(SendenseError):
    """Another agent serves the site."""

    code: ClassVar[str] = "SITE_TAKEN"
    status: ClassVar[StatusCode] = StatusCode.ALREADY_EXISTS
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "site {site!r} is served by the agent on {hostname!r} already"

    site: str
    hostname: str


@dataclass(eq=False)
class ProtocolViolation(SendenseError):
    """A peer said what the protocol has no place for."""

    code: ClassVar[str] = "PROTOCOL_VIOLATION"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "{problem}"

    problem: str


@dataclass(eq=False)
class AgentSilent(SendenseError):
    """The agent sent nothing for too long."""

    code: ClassVar[str] = "AGENT_SILENT"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent of site {site!r} sent nothing for {silent_s} s"

    site: str
    silent_s: int


@dataclass(eq=False)
class TooManyStreams(SendenseError):
    """The hub serves as many streams of the kind as it may."""

    code: ClassVar[str] = "TOO_MANY_STREAMS"
    status: ClassVar[StatusCode] = StatusCode.RESOURCE_EXHAUSTED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "{limit} {kind} streams are open, which is the limit; try again later"

    kind: str
    limit: int


@dataclass(eq=False)
class HubStopping(SendenseError):
    """The hub is shutting down."""

    code: ClassVar[str] = "HUB_STOPPING"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub is shutting down; try again when it serves again"


# Why a job failed, where no RPC carries the error.


@dataclass(eq=False)
class AgentLost(SendenseError):
    """The session of the job's agent ended, or never took the job."""

    code: ClassVar[str] = "AGENT_LOST"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub lost the agent of site {site!r} before the backup had ended"

    site: str


@dataclass(eq=False)
class JobStalled(SendenseError):
    """The agent is there, but uploads nothing of the job."""

    code: ClassVar[str] = "JOB_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the agent uploaded nothing of {job_id} for {silent_s} s"

    job_id: str
    silent_s: int


@dataclass(eq=False)
class RestoreStalled(SendenseError):
    """The client of a restore took no part of it for too long."""

    code: ClassVar[str] = "RESTORE_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = (
        "the restore of {job_id} was ended: nothing of it was taken for {silent_s} s; "
        "restore the disk again"
    )

    job_id: str
    silent_s: int


@dataclass(eq=False)
class UploadStalled(SendenseError):
    """The agent sent no part of an upload for too long."""

    code: ClassVar[str] = "UPLOAD_STALLED"
    status: ClassVar[StatusCode] = StatusCode.DEADLINE_EXCEEDED
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "disk {disk_index} of {job_id}: the agent sent nothing for {silent_s} s"

    job_id: str
    disk_index: int
    silent_s: int


@dataclass(eq=False)
class HubRestarted(SendenseError):
    """The hub ended while the job was running."""

    code: ClassVar[str] = "HUB_RESTARTED"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the hub was stopped before the backup had ended; start it again"


@dataclass(eq=False)
class AgentReported(SendenseError):
    """The agent gave up on the job, for the reason it names."""

    text: ClassVar[str] = "{message}"

    reason: str
    message: str


@dataclass(eq=False)
class Cancelled(SendenseError):
    """Somebody asked for the job's end."""

    code: ClassVar[str] = "CANCELLED"
    status: ClassVar[StatusCode] = StatusCode.CANCELLED
    text: ClassVar[str] = "{why}"

    why: str


@dataclass(eq=False)
class NoDisks(SendenseError):
    """The VM has no disk that can be backed up."""

    code: ClassVar[str] = "NO_DISKS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "VM {vm!r} has no disk that can be backed up"

    vm: str


@dataclass(eq=False)
class RepositoryDisabled(SendenseError):
    """No new backup may start in the repository."""

    code: ClassVar[str] = "REPOSITORY_DISABLED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} is disabled; enable it with "
        "sendense repository enable, or name another one"
    )

    repository: str


@dataclass(eq=False)
class RepositoryNotEmpty(SendenseError):
    """The repository has contexts, or files of deleted jobs that could not be removed yet."""

    code: ClassVar[str] = "REPOSITORY_NOT_EMPTY"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} still has {count} {problem}; delete each context with "
        "sendense context delete, also one without jobs; "
        "sendense context list --repository {repository} shows all"
    )

    repository: str
    contexts: int
    problem: str

    def __str__(self) -> str:
        if self.contexts:
            count = "1 context" if self.contexts == 1 else f"{self.contexts} contexts"
            return self.text.format(repository=self.repository, count=count, problem=self.problem)
        return (
            f"repository {self.repository!r} is not empty: {self.problem}; "
            "the hub goes on with it, see its log"
        )


@dataclass(eq=False)
class RepositoryIsDefault(SendenseError):
    """The default repository is not deleted while there are others."""

    code: ClassVar[str] = "REPOSITORY_IS_DEFAULT"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "repository {repository!r} is the default one; make another one the default "
        "with sendense repository set-default, then delete it"
    )

    repository: str


@dataclass(eq=False)
class AgentDraining(SendenseError):
    """No new backup may start at the site."""

    code: ClassVar[str] = "AGENT_DRAINING"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "site {site!r} is being drained: no new backup starts there until sendense agent resume"
    )

    site: str


@dataclass(eq=False)
class AgentConnected(SendenseError):
    """An agent that is connected is not forgotten."""

    code: ClassVar[str] = "AGENT_CONNECTED"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = "the agent of site {site!r} is connected; stop it first, then remove it"

    site: str


@dataclass(eq=False)
class AgentHasJobs(SendenseError):
    """An agent with jobs that have not ended is not forgotten."""

    code: ClassVar[str] = "AGENT_HAS_JOBS"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "site {site!r} has {jobs} jobs that have not ended; wait for their end or cancel them"
    )

    site: str
    jobs: int


@dataclass(eq=False)
class JobNotUnsuccessful(SendenseError):
    """Only failed and cancelled jobs are retried."""

    code: ClassVar[str] = "JOB_NOT_UNSUCCESSFUL"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    text: ClassVar[str] = (
        "backup job {job_id} is {job_status}: only failed and cancelled jobs are retried; "
        "start a new backup instead"
    )

    job_id: str
    job_status: str


@dataclass(eq=False)
class RestoreRunning(SendenseError):
    """What is to be deleted is being read by a restore."""

    code: ClassVar[str] = "RESTORE_RUNNING"
    status: ClassVar[StatusCode] = StatusCode.FAILED_PRECONDITION
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "a restore reads {job_id}: wait for its end, then delete again"

    job_id: str


@dataclass(eq=False)
class ChangeIdNotFound(SendenseError):
    """The disk has no change id that an increment could build on."""

    code: ClassVar[str] = "CHANGE_ID_NOT_FOUND"
    status: ClassVar[StatusCode] = StatusCode.NOT_FOUND
    text: ClassVar[str] = "no change id of disk {disk_index} of VM {vm!r}: {problem}"

    vm: str
    disk_index: int
    problem: str


@dataclass(eq=False)
class TwinsAmbiguous(VmAmbiguous):
    """Several VMs of one site answer to the name: the site does not tell them apart."""

    text: ClassVar[str] = (
        "several VMs match {vm!r}, at these sites: {sites}; name the VM by its instance uuid, "
        "one of {instance_uuids}"
    )

    instance_uuids: Sequence[str]

    def __str__(self) -> str:
        return self.text.format(
            vm=self.vm,
            sites=", ".join(self.sites),
            instance_uuids=", ".join(self.instance_uuids),
        )
