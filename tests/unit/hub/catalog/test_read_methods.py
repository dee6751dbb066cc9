"""How a disk is read in fact, as its upload begins: what the agent may change of the plan."""

from typing import Any

import pytest

from hub.catalog.models import BackupJob
from hub.catalog.upload_disk import SamplingFacts, resume_upload
from hub.errors import JobEnded, ProtocolViolation
from hub.jobs.states import BackupType, ReadMethod, Status
from tests.unit.hub.catalog.story import GIB, Story, frozen

pytestmark = pytest.mark.hostile
CLUSTERS = GIB // 65536
CLEAN = SamplingFacts(70, 900, 42, clusters_missed=0)
MISSED = SamplingFacts(70, 900, 42, clusters_missed=2)


def opened(story: Story, planned: ReadMethod) -> BackupJob:
    """A running job of one disk with that plan."""
    if planned is not ReadMethod.ALLOCATED:
        story.whole()
    job = story.start()
    (row,) = story.open(job, frozen(change_id="52 aa/2" if planned == "changed" else ""))
    assert row.read_method is planned
    return job


@pytest.mark.parametrize("planned", ReadMethod)
@pytest.mark.parametrize("said", [True, False])
def test_planned_method_is_kept_without_a_warning_of_its_own(
    story: Story, planned: ReadMethod, said: bool
) -> None:
    job = opened(story, planned)
    warnings = story.job(job).warnings
    disk = story.upload(job, method=planned if said else None)
    assert (disk.read_method, disk.status) == (planned, Status.RUNNING)
    assert (disk.base_disk_id is None) == (planned is ReadMethod.ALLOCATED)
    assert bool(disk.read_reason) == (planned is ReadMethod.COMPARED)
    assert story.job(job).warnings == warnings


def test_tracking_that_fails_is_replaced_by_a_comparison_and_told(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    disk = story.upload(job, method=ReadMethod.COMPARED, reason="FileFault from the host")
    assert (disk.read_method, disk.read_reason) == (ReadMethod.COMPARED, "FileFault from the host")
    assert disk.base is not None
    assert disk.backup_type is BackupType.INCREMENTAL
    (warning,) = story.job(job).warnings
    assert warning["code"] == "COMPARED_INSTEAD_OF_TRACKING"
    assert warning["message"].endswith(": FileFault from the host")
    assert story.context(job).tracking_distrusted_since is None


def test_comparison_without_a_reason_gets_one(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    story.upload(job, method=ReadMethod.COMPARED)
    assert "could not be used" in story.job(job).warnings[0]["message"]


def test_miss_is_recorded_and_its_warning_left_to_the_agent(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    disk = story.upload(job, method=ReadMethod.COMPARED, reason="2 missed", sampling=MISSED)
    assert (disk.read_method, disk.read_reason) == (ReadMethod.COMPARED, "2 missed")
    assert (disk.clusters_sampled, disk.clusters_drawn_from) == (70, 900)
    assert (disk.undetected_clusters_bound, disk.clusters_missed) == (42, 2)
    assert story.job(job).warnings == []


@pytest.mark.parametrize("planned", ReadMethod)
def test_sample_that_found_nothing_is_recorded(story: Story, planned: ReadMethod) -> None:
    """Also of what a comparison or a full leaves out: what the host calls unallocated."""
    job = opened(story, planned)
    disk = story.upload(job, sampling=CLEAN)
    assert (disk.read_method, disk.clusters_sampled) == (planned, 70)
    assert (disk.clusters_drawn_from, disk.undetected_clusters_bound) == (900, 42)
    assert story.context(job).tracking_distrusted_since is None


def test_miss_beside_a_comparison_is_recorded_and_distrusted(story: Story) -> None:
    job = opened(story, ReadMethod.COMPARED)
    disk = story.upload(job, sampling=MISSED)
    assert (disk.read_method, disk.clusters_missed) == (ReadMethod.COMPARED, 2)
    assert story.context(job).tracking_distrusted_job_id == job.id


@pytest.mark.parametrize("planned", [ReadMethod.CHANGED, ReadMethod.COMPARED])
def test_base_that_cannot_be_built_on_is_given_up_for_a_full(
    story: Story, planned: ReadMethod
) -> None:
    job = opened(story, planned)
    disk = story.upload(job, full_reason="a layer is damaged", method=ReadMethod.ALLOCATED)
    assert (disk.base, disk.base_disk_id, disk.backup_type) == (None, None, BackupType.FULL)
    assert (disk.read_method, disk.read_reason) == (ReadMethod.ALLOCATED, "a layer is damaged")
    after = story.job(job)
    assert after.backup_type is BackupType.FULL
    assert after.warnings[-1]["code"] == "FULL_INSTEAD_OF_INCREMENTAL"


def test_full_after_a_miss_keeps_the_distrust(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    story.seal(job, full_reason="a layer is damaged", sampling=MISSED)
    story.complete(job)
    assert story.context(job).tracking_distrusted_job_id == job.id


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        (ReadMethod.ALLOCATED, {"method": ReadMethod.COMPARED}),
        (ReadMethod.ALLOCATED, {"method": ReadMethod.CHANGED}),
        (ReadMethod.COMPARED, {"method": ReadMethod.CHANGED}),
        (ReadMethod.COMPARED, {"method": ReadMethod.ALLOCATED}),
        (ReadMethod.CHANGED, {"method": ReadMethod.ALLOCATED}),
        (ReadMethod.CHANGED, {"method": ReadMethod.COMPARED, "full_reason": "why"}),
        (ReadMethod.CHANGED, {"method": ReadMethod.CHANGED, "sampling": MISSED}),
        (ReadMethod.CHANGED, {"sampling": MISSED}),
        (ReadMethod.ALLOCATED, {"sampling": MISSED}),
        (ReadMethod.COMPARED, {"sampling": SamplingFacts(CLUSTERS + 1, 0, 0, 0)}),
        (ReadMethod.CHANGED, {"sampling": SamplingFacts(CLUSTERS + 1, 0, 0, 0)}),
        (ReadMethod.CHANGED, {"sampling": SamplingFacts(64, 2**63, 0, 0)}),
        (
            ReadMethod.CHANGED,
            {"method": ReadMethod.COMPARED, "sampling": SamplingFacts(1, 1, 1, 2)},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, ReadMethod) else "-".join(map(str, value)),
)
def test_what_the_plan_has_no_place_for_is_refused_and_nothing_is_changed(
    story: Story, planned: ReadMethod, said: dict[str, Any]
) -> None:
    job = opened(story, planned)
    before = story.job(job)
    with pytest.raises(ProtocolViolation):
        story.upload(job, **said)
    after = story.job(job)
    assert (after.disks[0].status, after.disks[0].read_method) == (Status.PENDING, planned)
    assert after.warnings == before.warnings
    assert after.context.tracking_distrusted_since is None


@pytest.mark.parametrize(("whole", "kept"), [(0, 2), (1, 2), (500, 500)])
def test_seal_tells_all_that_were_missed_and_never_fewer_than_the_sample(
    story: Story, whole: int, kept: int
) -> None:
    job = opened(story, ReadMethod.CHANGED)
    story.seal(job, method=ReadMethod.COMPARED, sampling=MISSED, clusters_missed=whole)
    assert story.job(job).disks[0].clusters_missed == kept


def test_begin_that_is_repeated_changes_nothing(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    for _ in range(2):
        story.upload(job, method=ReadMethod.COMPARED, reason="reset", sampling=CLEAN)
    assert len(story.job(job).warnings) == 1


@pytest.mark.parametrize("full_reason", ["", "a layer is damaged"])
def test_upload_that_goes_on_keeps_what_was_said_and_warns_once(
    story: Story, full_reason: str
) -> None:
    """Also of a full instead, whose row has no base any more, after a miss."""
    job = opened(story, ReadMethod.CHANGED)
    method = ReadMethod.ALLOCATED if full_reason else ReadMethod.COMPARED
    said: dict[str, Any] = {"full_reason": full_reason, "method": method, "reason": "2 missed"}
    first = story.upload(job, **said, sampling=MISSED)
    warnings = story.job(job).warnings
    for sampling in (MISSED, CLEAN, None):
        again = story.upload(job, **said, sampling=sampling)
        assert (again.read_method, again.read_reason) == (method, first.read_reason)
        assert (again.clusters_sampled, again.clusters_missed) == (70, 2)
        assert (again.base_disk_id, again.status) == (first.base_disk_id, Status.RUNNING)
    assert story.job(job).warnings == warnings


def test_upload_that_goes_on_by_another_plan_is_applied_to_the_row(story: Story) -> None:
    job = opened(story, ReadMethod.CHANGED)
    story.upload(job, method=ReadMethod.CHANGED)
    story.upload(job, method=ReadMethod.COMPARED, reason="reset")
    disk = story.upload(job, full_reason="a layer is damaged")
    assert (disk.read_method, disk.base_disk_id) == (ReadMethod.ALLOCATED, None)
    assert [warning["code"] for warning in story.job(job).warnings] == [
        "COMPARED_INSTEAD_OF_TRACKING",
        "FULL_INSTEAD_OF_INCREMENTAL",
    ]


def test_resume_is_counted_once_however_often_it_is_recorded(story: Story) -> None:
    job = opened(story, ReadMethod.ALLOCATED)
    disk = story.upload(job)
    for _ in range(2):
        with story.catalog.write() as session:
            resume_upload(session, disk, 7)
    disk = story.upload(job)
    assert (disk.resume_count, disk.bytes_resent) == (1, 7)
    story.fail(job)
    with pytest.raises(JobEnded), story.catalog.write() as session:
        resume_upload(session, disk, 7)
