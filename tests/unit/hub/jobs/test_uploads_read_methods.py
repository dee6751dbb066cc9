"""How a disk was read in fact: what an upload says of it, and what the catalog keeps."""

from collections.abc import Callable
from typing import Any

import pytest

from hub.catalog.models import BackupDisk
from hub.catalog.queries import find_disk
from hub.jobs.states import ReadMethod
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, Uploading, batches, raw_bytes
from tests.unit.hub.running_hub import RunningHub, refusal

pytestmark = pytest.mark.hostile

CLUSTERS = 4
WHOLE = CLUSTERS * CLUSTER_BYTES


@pytest.fixture
def job(hub: RunningHub, agent: FakeAgent) -> str:
    """A running increment of a disk of four clusters, planned to be read by tracking."""
    full = hub.start().job_id
    agent.expect("start_job")
    agent.run_job(full, [FakeDisk("AB.C")])
    assert hub.wait(full).status == pb.BACKUP_STATUS_COMPLETED
    job_id = hub.start().job_id
    agent.expect("start_job")
    agent.open_job(job_id, [FakeDisk("AB.C", change_id="52 aa/2")])
    (disk,) = agent.expect("job_plan").disks
    assert disk.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    return job_id


def sampling(**counts: int) -> pb.DiskSampling:
    found = {"clusters_sampled": 3, "clusters_drawn_from": 4, "undetected_clusters_bound": 2}
    return pb.DiskSampling(**found | counts)


def row(hub: RunningHub, job_id: str) -> BackupDisk:
    with hub.parts.catalog.read() as session:
        return find_disk(session, job_id, 0)


def completed(hub: RunningHub, agent: FakeAgent, job: str) -> pb.Backup:
    agent.send(job_uploaded=session_pb.JobUploaded(job_id=job))
    done = hub.wait(job)
    assert done.status == pb.BACKUP_STATUS_COMPLETED
    return done


def uploaded(
    agent: FakeAgent, job: str, *, finish: dict[str, int] | None = None, **opening: Any
) -> None:
    """Cluster 1 of the disk changed; all of it was read."""
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=WHOLE, **opening)
        up.frame(batches(".X")[0])
        up.finish(**finish or {})
        up.sealed()


def test_disk_read_as_planned_says_nothing_of_it(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    uploaded(agent, job, sampling=sampling())
    done = completed(hub, agent, job)
    disk = row(hub, job)
    assert disk.read_method is ReadMethod.CHANGED
    assert (disk.clusters_sampled, disk.clusters_drawn_from) == (3, 4)
    assert (disk.undetected_clusters_bound, disk.clusters_missed) == (2, 0)
    assert list(done.warnings) == []
    assert hub.restored(job) == raw_bytes("AX.C")


def test_comparison_instead_of_tracking_is_kept_with_its_reason(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    uploaded(
        agent,
        job,
        read_method=pb.READ_METHOD_COMPARED,
        read_reason="FileFault",
        finish={"bytes_unchanged": 3 * CLUSTER_BYTES},
    )
    done = completed(hub, agent, job)
    disk = row(hub, job)
    assert (disk.read_method, disk.read_reason) == (ReadMethod.COMPARED, "FileFault")
    assert disk.bytes_unchanged == 3 * CLUSTER_BYTES
    assert disk.bytes_read == disk.bytes_planned == WHOLE
    assert disk.base_disk_id is not None
    (warning,) = done.warnings
    assert warning.code == "COMPARED_INSTEAD_OF_TRACKING"
    assert "FileFault" in warning.message


def test_missed_clusters_of_the_whole_comparison_are_kept(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    uploaded(
        agent,
        job,
        read_method=pb.READ_METHOD_COMPARED,
        sampling=sampling(clusters_missed=1),
        finish={"clusters_missed": 4},
    )
    completed(hub, agent, job)
    assert row(hub, job).clusters_missed == 4


def test_full_instead_of_an_increment_has_no_base(
    hub: RunningHub, agent: FakeAgent, job: str
) -> None:
    agent.upload(
        job,
        0,
        "AX.C",
        full_instead=True,
        full_reason="its base is damaged",
        read_method=pb.READ_METHOD_ALLOCATED,
    )
    done = completed(hub, agent, job)
    disk = row(hub, job)
    assert (disk.read_method, disk.base_disk_id) == (ReadMethod.ALLOCATED, None)
    assert [warning.code for warning in done.warnings] == ["FULL_INSTEAD_OF_INCREMENTAL"]
    assert hub.restored(job) == raw_bytes("AX.C")


@pytest.mark.parametrize(
    "opening",
    [
        {"read_method": 99},
        {"read_method": pb.READ_METHOD_ALLOCATED},
        {"read_method": pb.READ_METHOD_COMPARED, "full_instead": True},
        {"sampling": sampling(clusters_missed=1)},
        {"sampling": sampling(clusters_sampled=2**63)},
    ],
    ids=["unknown", "full with a base", "compared in full", "missed and believed", "too many"],
)
def test_way_of_reading_that_does_not_fit_the_plan_is_refused(
    hub: RunningHub, agent: FakeAgent, job: str, opening: dict[str, Any]
) -> None:
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=WHOLE, **opening)
        assert refusal(up.sealed)[1] == "PROTOCOL_VIOLATION"
    # Nothing was taken: the agent may open it again, or report the job.
    uploaded(agent, job)
    completed(hub, agent, job)


def unchanged_too_many(up: Uploading) -> None:
    up.finish(bytes_unchanged=WHOLE + 1)


def missed_too_many(up: Uploading) -> None:
    up.finish(clusters_missed=CLUSTERS + 1)


@pytest.mark.parametrize(
    "wrong",
    [unchanged_too_many, missed_too_many],
    ids=lambda wrong: wrong.__name__,
)
def test_count_that_the_disk_cannot_have_fails_the_job(
    hub: RunningHub, agent: FakeAgent, job: str, wrong: Callable[[Uploading], None]
) -> None:
    with Uploading(agent.channel) as up:
        up.open(job, 0, bytes_planned=WHOLE)
        up.until("opened")
        wrong(up)
        assert refusal(up.sealed)[1] == "PROTOCOL_VIOLATION"
    assert hub.wait(job).error.reason == "PROTOCOL_VIOLATION"
