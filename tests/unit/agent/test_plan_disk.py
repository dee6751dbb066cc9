"""Whatever tracking, the host and the base say: what is read, what is left out, what is told of it."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.areas import Area
from agent.cluster_sets import areas_of
from agent.disk_checks import DiskChecks
from agent.errors import BaseUnusable
from agent.job_warnings import JobWarnings
from agent.missed_changes import MissedChanges
from agent.plan_disk import DiskPlanner
from agent.read_plan import ReadPlan
from agent.sampling import SampleSettings
from agent.transports.disk_reader import Extent
from agent.transports.errors import AllocationUnknown
from sendense.clusters import CLUSTER_BYTES, ZERO_DIGEST, cluster_digest
from sendense.v1 import backup_pb2

pytestmark = pytest.mark.hostile

K = CLUSTER_BYTES
CLUSTERS = 40
FEW = SampleSettings(fraction=0, least=3, first=1, neighbours=1)
ALL = SampleSettings(fraction=1)
CHANGED, COMPARED, ALLOCATED = (
    backup_pb2.READ_METHOD_CHANGED,
    backup_pb2.READ_METHOD_COMPARED,
    backup_pb2.READ_METHOD_ALLOCATED,
)
WHAT = {content: content.encode() * K for content in "abc"} | {".": bytes(K)}
DIGESTS = {content: cluster_digest(data) for content, data in WHAT.items()}

# One letter for each cluster: its content, "." being zeros.
contents = st.text("ab.", min_size=CLUSTERS, max_size=CLUSTERS)
numbers = st.frozensets(st.integers(0, CLUSTERS - 1))


@dataclass
class Disk:
    """As the snapshot froze it. `allocated`: what the host says; None: it does not tell."""

    now: str
    allocated: frozenset[int] | None
    seen: set[int] = field(default_factory=set)

    @property
    def capacity_bytes(self) -> int:
        return len(self.now) * K

    def allocated_areas(self) -> list[Area]:
        if self.allocated is None:
            raise AllocationUnknown("Hard disk 1", "not told")
        return areas_of(sorted(self.allocated), self.capacity_bytes)

    def read(self, areas: Iterable[Area]) -> Iterator[Extent]:
        for area in areas:
            self.seen.update(clusters_of([area]))
            yield Extent(area.start, b"".join(WHAT[self.now[n]] for n in clusters_of([area])))


@dataclass
class Base:
    """What the hub has of the disk. `questions`: so many are answered, then it is damaged."""

    held: str
    questions: int = 1 << 30

    def ask(self, regions: Iterable[list[Area]]) -> Generator[tuple[list[Area], bytes], None, None]:
        self.questions -= 1
        if self.questions < 0:
            raise BaseUnusable("LAYER_DAMAGED", "it is damaged")
        for areas in regions:
            yield areas, b"".join(DIGESTS[self.held[n]] for n in clusters_of(areas))


class Job:
    """One disk of a job, planned; what its restore point would hold."""

    def __init__(
        self,
        method: backup_pb2.ReadMethod,
        disk: Disk,
        base: Base,
        told: Iterable[int] = (),
        how: SampleSettings = FEW,
        job_id: str = "job-1",
    ) -> None:
        self.disk, self.warnings, self.missed = disk, JobWarnings(), MissedChanges()
        checks = DiskChecks(
            disk,  # type: ignore[arg-type]
            job_id=job_id,
            disk_index=0,
            label="Hard disk 1",
            settings=how,
            warnings=self.warnings,
        )
        planner = DiskPlanner(checks, disk.capacity_bytes, self.missed)
        areas = areas_of(sorted(told), disk.capacity_bytes)
        held: Base = base
        self.plan: ReadPlan = {
            CHANGED: lambda: planner.changed(areas, held),  # type: ignore[arg-type]
            COMPARED: lambda: planner.compared(held),  # type: ignore[arg-type]
            ALLOCATED: planner.allocated,
        }[method]()
        self.read = set(clusters_of(self.plan.areas))
        before = base.held if self.plan.base is not None else "." * len(disk.now)
        self.restored = [disk.now[n] if n in self.read else before[n] for n in range(len(disk.now))]
        assert self.plan.sampling is not None
        self.sampling = self.plan.sampling

    @property
    def wrong(self) -> int:
        """Clusters that a restore would get wrong."""
        return sum(a != b for a, b in zip(self.restored, self.disk.now, strict=True))

    @property
    def codes(self) -> list[str]:
        return [warning.code for warning in self.warnings.messages()]


def clusters_of(areas: Iterable[Area]) -> Iterator[int]:
    for area in areas:
        yield from range(area.start // K, -(-area.end // K))


methods = st.sampled_from([CHANGED, COMPARED, ALLOCATED])
property_of = settings(deadline=None, max_examples=150)


@property_of
@given(methods, contents, contents, st.none() | numbers, numbers, st.integers(0, 5))
def test_disk_that_is_sampled_whole_restores_whatever_anybody_says(
    method: backup_pb2.ReadMethod,
    now: str,
    held: str,
    allocated: frozenset[int] | None,
    told: frozenset[int],
    answered: int,
) -> None:
    job = Job(method, Disk(now, allocated), Base(held, answered), told, ALL)
    assert job.wrong == 0
    assert job.sampling.undetected_clusters_bound == 1


@property_of
@given(methods, contents, contents, st.none() | numbers, numbers, st.integers(0, 5))
@example(CHANGED, "a" * 8 + "." * 24 + "b" * 8, "a" * 8 + "." * 32, frozenset(range(8)), {1}, 9)
def test_what_was_told_of_and_what_was_sampled_restores_and_the_rest_is_counted(
    method: backup_pb2.ReadMethod,
    now: str,
    held: str,
    allocated: frozenset[int] | None,
    told: frozenset[int],
    answered: int,
) -> None:
    disk = Disk(now, allocated)
    job = Job(method, disk, Base(held, answered), told)
    right = {n for n in range(CLUSTERS) if job.restored[n] == now[n]}
    assert disk.seen <= right, "read by a check, and not stored"
    if method == CHANGED:
        assert set(told) <= job.read
    assert job.sampling.clusters_sampled == len(disk.seen)
    assert job.sampling.clusters_drawn_from == CLUSTERS - len(job.read)
    assert job.sampling.undetected_clusters_bound <= CLUSTERS - len(job.read) + 1
    assert job.plan.bytes_planned == len(job.read) * K
    assert job.codes == ["ALLOCATION_WRONG"] * bool(job.codes)
    if job.codes:
        assert job.plan.method != CHANGED
        assert len(job.read) == CLUSTERS
    if job.sampling.clusters_missed:
        assert method == CHANGED
        assert job.plan.method != CHANGED


# A disk of 900 clusters, 100 of them with data.
DATA, HOLES = "a" * 100, "." * 800
TRUE = frozenset(range(100))


@pytest.mark.parametrize("method", [CHANGED, COMPARED, ALLOCATED])
@pytest.mark.parametrize("denied", [40, 80])
def test_data_that_the_host_denies_is_stored_whole_by_the_job_that_sees_some_of_it(
    method: backup_pb2.ReadMethod, denied: int
) -> None:
    """The base was made by the same host: it has zeros there, and tracking nothing to tell."""
    now = DATA + "b" * denied + HOLES[denied:]
    jobs, unseen = 200, 0
    for number in range(jobs):
        job = Job(
            method, Disk(now, TRUE), Base(DATA + HOLES), {7}, SampleSettings(), f"job-{number}"
        )
        if job.codes:
            assert job.wrong == 0
            assert job.plan.method == (ALLOCATED if method == ALLOCATED else COMPARED)
            assert (job.plan.reason != "") == (method == CHANGED)
            assert job.sampling.undetected_clusters_bound == 1
        else:
            assert job.wrong == denied
            assert job.wrong >= job.sampling.undetected_clusters_bound
            unseen += 1
    assert unseen <= jobs // 20


def test_trims_that_tracking_missed_are_among_what_the_bound_is_of() -> None:
    """The base has data where the host calls clusters unallocated now."""
    now = "a" * 50 + "." * 850
    jobs, unseen = 200, 0
    for number in range(jobs):
        job = Job(
            CHANGED,
            Disk(now, frozenset(range(50))),
            Base(DATA + HOLES),
            {7},
            SampleSettings(),
            f"job-{number}",
        )
        assert (job.wrong == 0) == (job.plan.method == COMPARED)
        if job.plan.method == CHANGED:
            assert job.sampling.clusters_drawn_from == 900 - 1
            assert job.wrong >= job.sampling.undetected_clusters_bound
            unseen += 1
    assert unseen <= jobs // 20


def test_both_doubts_are_told_of_and_everything_is_read() -> None:
    now = "b" + DATA[1:] + "b" + HOLES[1:]
    job = Job(CHANGED, Disk(now, TRUE), Base(DATA + HOLES), {5}, ALL)
    assert job.plan.reason == (
        "the host called clusters unallocated that hold data; "
        "changed block tracking missed 2 of 899 sampled clusters"
    )
    assert job.sampling.clusters_missed == job.missed.count == 2
    assert job.codes == ["ALLOCATION_WRONG"]
    assert "of 800 sampled clusters" in job.warnings.messages()[0].message
    assert f"at byte {100 * K};" in job.warnings.messages()[0].message
    assert job.wrong == 0


def test_wrong_allocation_is_remembered_when_the_base_turns_out_damaged() -> None:
    now = DATA + "b" + HOLES[1:]
    job = Job(CHANGED, Disk(now, TRUE), Base(DATA + HOLES, questions=1), {5}, ALL)
    assert "damaged" in job.plan.full_reason
    assert job.plan.method == ALLOCATED
    assert job.read == set(range(900))


def test_zero_digest_is_that_of_a_cluster_of_zeros() -> None:
    assert DIGESTS["."] == ZERO_DIGEST
