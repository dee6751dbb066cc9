"""Contexts, chains and change ids over gRPC."""

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.v1 import backup_pb2 as pb
from sendense.v1 import context_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeVm
from tests.unit.hub.jobs.backups import backed_up, failed
from tests.unit.hub.running_hub import RunningHub, refusal

MakeAgent = Callable[..., FakeAgent]
Code = grpc.StatusCode


def contexts(hub: RunningHub, **filters: str) -> list[context_pb2.BackupContext]:
    request = context_pb2.ListContextsRequest(**filters)
    return list(hub.contexts.ListContexts(request, timeout=20).contexts)


def backups(hub: RunningHub, **filters: object) -> list[str]:
    request = pb.ListBackupsRequest(**filters)  # type: ignore[arg-type]
    return [job.job_id for job in hub.backups.ListBackups(request, timeout=20).backups]


def chain(hub: RunningHub, job_id: str, disk_index: int = 0) -> context_pb2.GetChainResponse:
    request = context_pb2.GetChainRequest(job_id=job_id, disk_index=disk_index)
    return hub.disks.GetChain(request, timeout=20)


def change_id(hub: RunningHub, vm: str, **more: object) -> context_pb2.GetChangeIdResponse:
    request = context_pb2.GetChangeIdRequest(vm=vm, **more)  # type: ignore[arg-type]
    return hub.disks.GetChangeId(request, timeout=20)


def test_contexts_are_listed_by_vm_site_and_repository(hub: RunningHub, agents: MakeAgent) -> None:
    lab = agents("lab", FakeVm("a"), FakeVm("b", moref="vm-2", instance_uuid="u2"))
    dr = agents("dr", FakeVm("a", instance_uuid="u3"))
    first = backed_up(hub, lab, "AB", 1, vm="a", site="lab")
    second = backed_up(hub, lab, ".C", 2, vm="a", site="lab")
    backed_up(hub, dr, "AB", 1, vm="a", site="dr")
    assert [(c.vm_name, c.site) for c in contexts(hub, vm_name="a")] == [("a", "lab"), ("a", "dr")]
    (found,) = contexts(hub, site="lab", repository="default")
    assert (found.restore_point_count, found.bytes_stored) == (
        2,
        first.bytes_stored + second.bytes_stored,
    )
    # Known, but never backed up.
    assert contexts(hub, vm_name="b") == []
    for filters, reason in (
        ({"vm_name": "nobody"}, "VM_NOT_FOUND"),
        ({"repository": "nowhere"}, "REPOSITORY_NOT_FOUND"),
        ({"site": "mars"}, "SITE_NOT_FOUND"),
    ):
        assert refusal(lambda f=filters: contexts(hub, **f))[:2] == (Code.NOT_FOUND, reason)


def test_jobs_are_listed_by_type_status_time_and_order(hub: RunningHub, agent: FakeAgent) -> None:
    full = backed_up(hub, agent, "AB", 1)
    increment = backed_up(hub, agent, ".C", 2)
    broken = failed(hub, agent)
    ids = [full.job_id, increment.job_id, broken.job_id]
    assert backups(hub) == ids[::-1]
    assert backups(hub, order=pb.BACKUP_ORDER_OLDEST_FIRST) == ids
    assert backups(hub, order=pb.BACKUP_ORDER_NEWEST_FIRST) == ids[::-1]
    assert backups(hub, backup_type=pb.BACKUP_TYPE_FULL) == [full.job_id]
    assert backups(hub, status=pb.BACKUP_STATUS_FAILED) == [broken.job_id]
    assert backups(hub, created_after=increment.created_at) == [broken.job_id, increment.job_id]
    assert backups(hub, created_before=increment.created_at) == [full.job_id]
    both = {"created_after": full.created_at, "created_before": broken.created_at}
    assert backups(hub, **both) == [increment.job_id, full.job_id]
    year_0 = Timestamp(seconds=-62135596801)
    for field in ("created_after", "created_before"):
        answer = refusal(lambda f=field: backups(hub, **{f: year_0}))
        assert (answer[0], answer[2]["field"]) == (Code.INVALID_ARGUMENT, field)


def test_chain_names_its_layers_with_their_sizes_newest_first(
    hub: RunningHub, agent: FakeAgent
) -> None:
    jobs = [backed_up(hub, agent, "ABCD", number) for number in range(1, 4)]
    answer = chain(hub, jobs[2].job_id)
    assert [layer.job_id for layer in answer.layers] == [job.job_id for job in reversed(jobs)]
    assert answer.bytes_stored == sum(job.bytes_stored for job in jobs)
    for layer, job in zip(answer.layers, reversed(jobs), strict=True):
        (disk,) = job.disks
        assert layer == context_pb2.ChainLayer(
            job_id=job.job_id,
            disk_index=0,
            disk_id=disk.disk_id,
            backup_type=disk.backup_type,
            created_at=job.created_at,
            qcow2_path=disk.qcow2_path,
            bytes_stored=disk.bytes_stored,
            capacity_bytes=disk.capacity_bytes,
            disk_change_id=disk.disk_change_id,
            problem="",
        )
    assert [layer.job_id for layer in chain(hub, jobs[0].job_id).layers] == [jobs[0].job_id]


def test_chain_says_which_files_are_not_there(hub: RunningHub, agent: FakeAgent) -> None:
    jobs = [backed_up(hub, agent, "AB", number) for number in range(1, 4)]

    def problems() -> list[str]:
        return [layer.problem for layer in chain(hub, jobs[2].job_id).layers]

    folder = hub.repository_folder()
    (folder / jobs[0].disks[0].qcow2_path).unlink()
    assert problems() == ["", "", "its file is missing"]
    layer = folder / jobs[1].disks[0].qcow2_path
    layer.unlink()
    layer.mkdir()
    (folder / jobs[2].disks[0].qcow2_path).with_suffix(".manifest").unlink()
    assert problems() == [
        "its manifest is missing",
        "its file is no regular file",
        "its file is missing",
    ]
    folder.rename(folder.with_name("unmounted"))
    assert all("mounted" in problem for problem in problems())


def test_chain_of_what_is_no_restore_point_is_refused(hub: RunningHub, agent: FakeAgent) -> None:
    done = backed_up(hub, agent, "AB", 1)
    broken = failed(hub, agent)
    for job_id, index, status, reason in (
        (broken.job_id, 0, Code.FAILED_PRECONDITION, "NOT_A_RESTORE_POINT"),
        ("nobody", 0, Code.NOT_FOUND, "JOB_NOT_FOUND"),
        (done.job_id, 7, Code.NOT_FOUND, "DISK_NOT_FOUND"),
    ):
        answer = refusal(lambda j=job_id, i=index: chain(hub, j, i))
        assert answer[:2] == (status, reason)


@pytest.mark.parametrize("vm", ["pgtest1", "vm-1", "5020-pgtest1", "5020-PGTEST1"])
def test_change_id_is_what_the_next_increment_asks_for(
    hub: RunningHub, agent: FakeAgent, vm: str
) -> None:
    backed_up(hub, agent, "AB", 1)
    last = backed_up(hub, agent, ".C", 2)
    failed(hub, agent)
    found = change_id(hub, vm)
    (disk,) = last.disks
    assert found == context_pb2.GetChangeIdResponse(
        disk_change_id="52 aa/2",
        context_id=last.context_id,
        job_id=last.job_id,
        disk_id=disk.disk_id,
        vmware_disk_key=2000,
        disk_uuid=disk.disk_uuid,
        completed_at=disk.completed_at,
    )


def test_change_id_is_of_the_vm_that_has_the_name_now(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents("lab", FakeVm())
    first = backed_up(hub, agent, "AB", 1)
    renamed = FakeVm("old-pg")
    agent.vms = [renamed, FakeVm(moref="vm-2", instance_uuid="u2")]
    agent.report()
    # As StartBackup sees it: the context has the old name still.
    assert refusal(lambda: change_id(hub, "pgtest1"))[1] == "CHANGE_ID_NOT_FOUND"
    assert change_id(hub, "old-pg").job_id == first.job_id
    second = backed_up(hub, agent, "AB", 5, vm="pgtest1")
    assert change_id(hub, "pgtest1").job_id == second.job_id
    assert change_id(hub, "old-pg").job_id == first.job_id
    # What no site reports any more is known by the name it was backed up under.
    agent.vms = []
    agent.report()
    status, reason, facts = refusal(lambda: change_id(hub, "pgtest1"))
    assert (status, reason) == (Code.FAILED_PRECONDITION, "VM_AMBIGUOUS")
    assert facts["instance_uuids"] == f"{renamed.instance_uuid},u2"
    assert change_id(hub, "u2").job_id == second.job_id


def test_missing_change_id_is_explained(hub: RunningHub, agents: MakeAgent) -> None:
    agent = agents("lab", FakeVm(), FakeVm("never", moref="vm-2", instance_uuid="u2"))
    last = backed_up(hub, agent, "AB", 1)
    assert refusal(lambda: change_id(hub, "nobody"))[:2] == (Code.NOT_FOUND, "VM_NOT_FOUND")
    status, reason, facts = refusal(lambda: change_id(hub, "never"))
    assert (status, reason) == (Code.NOT_FOUND, "CHANGE_ID_NOT_FOUND")
    assert facts["problem"] == "it was never backed up into repository 'default'"
    facts = refusal(lambda: change_id(hub, "pgtest1", disk_index=3))[2]
    assert facts["problem"] == f"its last completed backup, {last.job_id}, has the disks 0"
    assert (
        refusal(lambda: change_id(hub, "pgtest1", repository="nowhere"))[1]
        == "REPOSITORY_NOT_FOUND"
    )
    dr = agents("dr", FakeVm(instance_uuid="u3"))
    backed_up(hub, dr, "AB", 1, site="dr")
    status, reason, facts = refusal(lambda: change_id(hub, "pgtest1"))
    assert (status, reason, facts["sites"]) == (Code.FAILED_PRECONDITION, "VM_AMBIGUOUS", "dr,lab")
    assert change_id(hub, "pgtest1", site="lab").job_id == last.job_id
