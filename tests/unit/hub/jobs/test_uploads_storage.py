"""Uploads into a repository that cannot be written: the job fails, others and the hub go on."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hub.repository.file_calls import FileCalls, replaced
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal

CONTENT = "ABCD"


class FailingCalls(FileCalls):
    """Of one job's files, every call of a kind fails."""

    def __init__(self, job_id: str, call: str, number: int) -> None:
        self.failed = 0
        self._job_id, self._call, self._number = job_id, call, number

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._fail("pwritev", fd)
        return super().pwritev(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        self._fail("fdatasync", fd)
        super().fdatasync(fd)

    def _fail(self, call: str, fd: int) -> None:
        if call == self._call and self._job_id in str(Path(f"/proc/self/fd/{fd}").readlink()):
            self.failed += 1
            raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "REPOSITORY_FULL"),
        (errno.EDQUOT, "REPOSITORY_FULL"),
        (errno.EIO, "LAYER_WRITE_FAILED"),
        (errno.EROFS, "REPOSITORY_UNUSABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode[value],
)
def test_job_fails_when_its_layer_cannot_be_written_and_others_go_on(
    hub: RunningHub, agents: Callable[..., FakeAgent], call: str, number: int, reason: str
) -> None:
    names = ["pgtest1", "pgtest2"]
    vms = [FakeVm(name, f"vm-{name}", f"5020-{name}") for name in names]
    agent = agents("lab", *vms)
    jobs = []
    for name in names:
        jobs.append(hub.start(name).job_id)
        agent.expect("start_job")
        agent.open_job(jobs[-1], [FakeDisk(CONTENT)])
        agent.expect("job_plan")
    bad, good = jobs
    with Uploading(agent.channel) as failing, Uploading(agent.channel) as other:
        for up, job_id in ((failing, bad), (other, good)):
            up.open(job_id, 0, bytes_planned=4 * 65536, plan_digest=b"p" * 16)
            up.opened()
            up.frame(batches(CONTENT)[0])
            up.acknowledged(1)
        calls = FailingCalls(bad, call, number)
        with replaced(calls):
            failing.frame(batches(CONTENT)[1])
            other.frame(batches(CONTENT)[1])
            assert refusal(failing.sealed)[1] == reason
            other.acknowledged(2)
        assert calls.failed
        assert hub.wait(bad).error.reason == reason
        for batch in batches(CONTENT)[2:]:
            other.frame(batch)
        other.finish()
        other.sealed()
    assert agent.expect("cancel_job").job_id == bad
    agent.send(job_uploaded={"job_id": good})
    assert hub.wait(good).status == pb.BACKUP_STATUS_COMPLETED
    assert hub.restored(good) == raw_bytes(CONTENT)
    hub.wait_for_files({name for name in hub.files() if good in name})
    # What failed can be backed up as soon as there is room again.
    again = hub.start("pgtest1").job_id
    agent.expect("start_job")
    agent.run_job(again, [FakeDisk(CONTENT)])
    assert hub.wait(again).status == pb.BACKUP_STATUS_COMPLETED


def test_repository_without_its_reserve_takes_no_more(
    hub: RunningHub, agents: Callable[..., FakeAgent]
) -> None:
    agent = agents()
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, [FakeDisk(CONTENT)])
    agent.expect("job_plan")
    with Uploading(agent.channel) as up:
        up.open(job_id, 0, bytes_planned=4 * 65536, plan_digest=b"p" * 16)
        up.opened()
        with replaced(NoRoom()):
            up.frame(batches(CONTENT)[0])
            assert refusal(up.sealed)[1] == "REPOSITORY_FULL"
    assert hub.wait(job_id).error.reason == "REPOSITORY_FULL"
    hub.wait_for_files(set())


class NoRoom(FileCalls):
    """A file system that is almost full."""

    def free_bytes(self, path: Path | str) -> int:
        return 1 << 20
