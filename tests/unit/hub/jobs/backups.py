"""Whole backups of one VM, and their deletion, in one line each."""

from sendense.v1 import backup_pb2 as pb
from sendense.v1 import context_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk
from tests.unit.hub.running_hub import RunningHub

TIMEOUT_S = 40


def backed_up(
    hub: RunningHub, agent: FakeAgent, content: str, sequence: int, **request: object
) -> pb.Backup:
    """A completed backup of a disk; `sequence` is the number in its change id."""
    job = hub.start(**request)  # type: ignore[arg-type]
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk(content, change_id=f"52 aa/{sequence}")])
    done = hub.wait(job.job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error
    return done


def failed(hub: RunningHub, agent: FakeAgent) -> pb.Backup:
    """A backup that its agent gave up."""
    job = hub.start()
    agent.expect("start_job")
    agent.send(job_failed={"job_id": job.job_id, "error": {"reason": "X", "message": "it broke"}})
    return hub.wait(job.job_id)


def delete(hub: RunningHub, job_id: str, *, cascade: bool = False) -> pb.DeletedBackups:
    """DeleteBackup."""
    request = pb.DeleteBackupRequest(job_id=job_id, cascade=cascade)
    return hub.backups.DeleteBackup(request, timeout=TIMEOUT_S).deleted


def delete_context(hub: RunningHub, context_id: str) -> pb.DeletedBackups:
    """DeleteContext."""
    request = context_pb2.DeleteContextRequest(context_id=context_id)
    return hub.contexts.DeleteContext(request, timeout=TIMEOUT_S).deleted


def context_of(hub: RunningHub, job: pb.Backup) -> context_pb2.BackupContext:
    """GetContext."""
    request = context_pb2.GetContextRequest(context_id=job.context_id)
    return hub.contexts.GetContext(request, timeout=TIMEOUT_S).context


def job_ids(hub: RunningHub) -> list[str]:
    """All jobs, newest first."""
    answer = hub.backups.ListBackups(pb.ListBackupsRequest(), timeout=TIMEOUT_S)
    return [job.job_id for job in answer.backups]
