"""How disks are read, over real gRPC: planned, told by the agent, kept, and shown to clients."""

import json

import grpc
import pytest

from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, raw_bytes
from tests.unit.hub.jobs.backups import backed_up, context_of
from tests.unit.hub.running_hub import RunningHub, refusal

pytestmark = pytest.mark.hostile
SAMPLE = pb.DiskSampling(
    clusters_sampled=3, clusters_drawn_from=4, undetected_clusters_bound=2, clusters_missed=1
)


def planned(
    hub: RunningHub, agent: FakeAgent, *disks: FakeDisk
) -> tuple[str, list[session_pb.DiskPlan]]:
    """A job that is open, and what its disks are read by."""
    job = hub.start()
    agent.expect("start_job")
    agent.open_job(job.job_id, disks)
    return job.job_id, list(agent.expect("job_plan").disks)


def finished(hub: RunningHub, agent: FakeAgent, job_id: str) -> pb.Backup:
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
    done = hub.wait(job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error
    return done


def test_reset_of_tracking_costs_reading_and_no_storage(hub: RunningHub, agent: FakeAgent) -> None:
    """Failures 4, 14, 15: the base is kept, and only what differs is sent."""
    first = backed_up(hub, agent, "ABCD", 1)
    job_id, (plan,) = planned(hub, agent, FakeDisk("AB0E", change_id="77 bb/1"))
    assert plan.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    assert (plan.read_method, plan.base_change_id) == (pb.READ_METHOD_COMPARED, "")
    assert "was reset" in plan.read_reason
    agent.upload(job_id, 0, "..0E", read_method=pb.READ_METHOD_COMPARED)
    done = finished(hub, agent, job_id)
    (disk,) = done.disks
    assert (disk.base_job_id, disk.read_method) == (first.job_id, pb.READ_METHOD_COMPARED)
    assert disk.read_reason == plan.read_reason
    assert not disk.HasField("sampling")
    assert [(one.code, one.disk_label) for one in done.warnings] == [
        ("COMPARED_INSTEAD_OF_TRACKING", "Hard disk 1")
    ]
    assert hub.restored(job_id) == raw_bytes("AB0E")
    assert hub.restored(first.job_id) == raw_bytes("ABCD")


def test_missed_change_is_kept_shown_and_makes_the_next_backup_compare_all(
    hub: RunningHub, agent: FakeAgent
) -> None:
    """Failure 11."""
    first = backed_up(hub, agent, "ABCD", 1)
    assert not context_of(hub, first).HasField("tracking_distrusted_since")
    job_id, (plan,) = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/2"))
    assert (plan.read_method, plan.base_change_id) == (pb.READ_METHOD_CHANGED, "52 aa/1")
    agent.upload(
        job_id,
        0,
        "..X.",
        read_method=pb.READ_METHOD_COMPARED,
        read_reason="changed block tracking missed 1 cluster",
        sampling=SAMPLE,
    )
    liar = finished(hub, agent, job_id)
    assert liar.disks[0].sampling == SAMPLE
    assert liar.disks[0].read_method == pb.READ_METHOD_COMPARED
    context = context_of(hub, liar)
    assert context.HasField("tracking_distrusted_since")
    assert context.tracking_distrusted_job_id == job_id
    facts = hub.repository_folder() / liar.context_id / job_id / "job.json"
    (kept,) = json.loads(facts.read_text())["disks"]
    assert (kept["read_method"], kept["sampling"]["clusters_missed"]) == ("compared", 1)

    job_id, (plan,) = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/3"))
    assert plan.read_method == pb.READ_METHOD_COMPARED
    assert liar.job_id in plan.read_reason
    agent.upload(job_id, 0, "....", read_method=pb.READ_METHOD_COMPARED)
    finished(hub, agent, job_id)
    context = context_of(hub, liar)
    assert not context.HasField("tracking_distrusted_since")
    assert context.tracking_distrusted_job_id == ""
    assert hub.restored(job_id) == raw_bytes("ABXD")
    job_id, (plan,) = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/4"))
    assert plan.read_method == pb.READ_METHOD_CHANGED


def test_miss_is_remembered_although_the_job_failed(hub: RunningHub, agent: FakeAgent) -> None:
    first = backed_up(hub, agent, "ABCD", 1)
    job_id, _ = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/2"))
    agent.upload(job_id, 0, "..X.", read_method=pb.READ_METHOD_COMPARED, sampling=SAMPLE)
    agent.send(job_failed={"job_id": job_id, "error": {"reason": "X", "message": "it broke"}})
    assert hub.wait(job_id).status == pb.BACKUP_STATUS_FAILED
    assert context_of(hub, first).tracking_distrusted_job_id == job_id
    _, (plan,) = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/3"))
    assert plan.read_method == pb.READ_METHOD_COMPARED


def test_miss_is_remembered_although_the_job_failed_before_any_upload(
    hub: RunningHub, agent: FakeAgent
) -> None:
    first = backed_up(hub, agent, "ABCD", 1)
    job_id, _ = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/2"))
    told = {"code": "CBT_MISSED_CHANGES", "message": "missed 1", "disk_label": "Hard disk 1"}
    error = {"reason": "X", "message": "it broke"}
    agent.send(job_failed={"job_id": job_id, "error": error, "warnings": [told]})
    assert hub.wait(job_id).status == pb.BACKUP_STATUS_FAILED
    assert context_of(hub, first).tracking_distrusted_job_id == job_id
    _, (plan,) = planned(hub, agent, FakeDisk("ABXD", change_id="52 aa/3"))
    assert plan.read_method == pb.READ_METHOD_COMPARED


def test_disk_that_is_to_be_compared_is_not_read_by_tracking(
    hub: RunningHub, agent: FakeAgent
) -> None:
    backed_up(hub, agent, "AB", 1)
    job_id, _ = planned(hub, agent, FakeDisk("CD", change_id="77 bb/1"))
    assert refusal(lambda: agent.upload(job_id, 0, "C.", read_method=pb.READ_METHOD_CHANGED))[
        :2
    ] == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VIOLATION")
    assert hub.get(job_id).disks[0].read_method == pb.READ_METHOD_COMPARED


def test_gone_disk_is_told_and_stays_restorable(hub: RunningHub, agent: FakeAgent) -> None:
    """Failure 9: who a disk is, its uuid and key say, not its place."""
    second = FakeDisk("CD", key=2001, uuid="u2", label="Hard disk 2")
    job_id, _ = planned(hub, agent, FakeDisk("AB"), second)
    agent.upload(job_id, 0, "AB")
    agent.upload(job_id, 1, "CD")
    both = finished(hub, agent, job_id)
    second.change_id = "52 aa/2"
    job_id, (plan,) = planned(hub, agent, second)
    assert (plan.disk_index, plan.read_method) == (0, pb.READ_METHOD_CHANGED)
    agent.upload(job_id, 0, ".E")
    alone = finished(hub, agent, job_id)
    assert [(one.code, one.disk_label) for one in alone.warnings] == [("DISK_GONE", "Hard disk 1")]
    assert hub.restored(both.job_id, 0) == raw_bytes("AB")
    assert hub.restored(alone.job_id, 0) == raw_bytes("CE")
