"""Each change of the repository fails once, in each way: under all its writers, and under a hub."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from hub.repository import (
    KnownJobs,
    LayerWriter,
    Repository,
    RepositoryFull,
    RepositoryUnusable,
)
from hub.repository.file_calls import replaced
from hub.repository.files import Descriptors
from hub.repository.lineage import open_lineage
from hub.repository.paths import LAYER_SUFFIX, REPOSITORY_FACTS
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import backup_pb2 as pb
from shared.errors import SendenseError
from tests.crash.faulty_calls import Fault, FaultyCalls
from tests.crash.small_hub import small_hub
from tests.crash.summary import Tally
from tests.unit.hub.repository.disks import (
    BackedUpDisk,
    GuestDisk,
    assert_clean,
    assert_same_as_guest,
    encoded,
    identity,
)

_FAULTS = "faults of file calls"
_ANY = {"REPOSITORY_FULL", "REPOSITORY_UNUSABLE", "LAYER_WRITE_FAILED"}
_REASONS = {
    Fault.DISK_FULL: {"REPOSITORY_FULL"},
    Fault.QUOTA: {"REPOSITORY_FULL"},
    Fault.SHORT_WRITE: {"REPOSITORY_FULL"},
    Fault.READ_ONLY: {"REPOSITORY_UNUSABLE"},
}
DISK = "ABc0"  # compressed, raw and zero clusters
CONTEXT = "ctx-backup-pgtest1-1"
JOBS = ("job-0", "job-1", "job-2")  # a full and two increments of it
TO_REMOVE = JOBS[-1]


class Life:
    """A repository from its creation to the removal of a job, going on after each failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: list[SendenseError] = []
        self.repository: Repository | None = None

    def live(self, calls: FaultyCalls) -> None:
        """Every step is tried; one that failed is cleaned up after as the hub does."""
        with suppress(SendenseError), replaced(calls):
            self._create()
            for job in JOBS:
                self._job(job)
            assert self.repository is not None
            self.repository.remove_job(CONTEXT, TO_REMOVE)

    def _create(self) -> None:
        with self._noted():
            self.repository = Repository.create(self.folder, repository_id="r", name="r")
        self.chain = BackedUpDisk(self.repository, GuestDisk(len(DISK) * CLUSTER_BYTES))
        with self._noted():
            self.repository.check_writable()

    def _job(self, job: str) -> None:
        assert self.repository is not None
        drawing = {0: DISK} if self.chain.base is None else {1: "X0"}
        before = dict(self.chain.disk.clusters)
        written = self.chain.disk.write(drawing)
        writer: LayerWriter | None = None
        try:
            with self._noted():
                frames = list(
                    encoded(
                        self.chain.disk,
                        written,
                        keep_zeros=self.chain.base is not None,
                        frame_clusters=1,
                    )
                )
                writer = self._opened(job)
                writer.append(frames[0])
                writer.sync()
                writer.append(frames[1])
                writer.suspend()
                writer = self._opened(job)
                for frame in frames[writer.durable.frames :]:
                    writer.append(frame)
                sealed = writer.seal(f"change/{job}")
                self.repository.write_job_facts(CONTEXT, job, {"job_id": job})
        except SendenseError:
            self.chain.disk.clusters = before
            if writer is not None:
                writer.discard()
            # The hub notes this and tries it again until it works.
            self.repository.remove_job(CONTEXT, job)
            raise
        if job == TO_REMOVE:
            self.chain.disk.clusters = before
        else:
            self.chain.sealed_as(sealed, job)

    def _opened(self, job: str) -> LayerWriter:
        assert self.repository is not None
        disk = identity(job, self.chain.disk.capacity_bytes)
        writer = self.repository.resume_layer(
            disk, self.chain.base, plan_digest=b"p" * 16, change_id=f"change/{job}"
        ).writer
        assert writer is not None
        return writer

    def _noted(self) -> "_Noted":
        return _Noted(self.failures)


class _Noted:
    def __init__(self, failures: list[SendenseError]) -> None:
        self._failures = failures

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SendenseError):
            self._failures.append(error)


def assert_no_half_file(folder: Path) -> None:
    """What has a final name is whole."""
    for path in folder.rglob("*"):
        if path.name in (REPOSITORY_FACTS, "job.json"):
            json.loads(path.read_bytes())
    for layer in folder.rglob(f"*{LAYER_SUFFIX}"):
        repository = Repository(folder, "r")
        name = str(layer.relative_to(folder))
        with repository.open_chain(_chain(folder, name)) as chain:
            for _ in chain.batches():
                pass


def _chain(folder: Path, layer: str) -> list[str]:
    with Descriptors(folder) as files:
        return [manifest.layer for manifest in open_lineage(files, layer)]


def nth_calls() -> Iterator[int]:
    return count(1)


@pytest.mark.parametrize("fault", Fault)
def test_repository_survives_each_failing_call(fault: Fault, tmp_path: Path, tally: Tally) -> None:
    for nth in nth_calls():
        folder = tmp_path / f"{nth}"
        life = Life(folder)
        calls = FaultyCalls(fault, nth)
        life.live(calls)
        calls.repair()
        if not calls.fired:
            break
        tally.count(_FAULTS)
        _assert_failures_tell(fault, life.failures)
        if folder.is_dir():
            assert_no_half_file(folder)
        _go_on(life, tmp_path, thorough=nth % 5 == 0)
    # Every writer was run over: a run without a fault makes that many calls.
    assert nth > {Fault.SHORT_WRITE: 20, Fault.TORN_SYNC: 20}.get(fault, 50)
    assert life.failures == []


def _assert_failures_tell(fault: Fault, failures: list[SendenseError]) -> None:
    kinds = {
        Fault.DISK_FULL: RepositoryFull,
        Fault.QUOTA: RepositoryFull,
        Fault.SHORT_WRITE: RepositoryFull,
        Fault.READ_ONLY: RepositoryUnusable,
    }
    for failure in failures:
        assert isinstance(failure, kinds.get(fault, SendenseError)), failure


def _go_on(life: Life, tmp_path: Path, *, thorough: bool) -> None:
    """The fault is over: the next start sweeps, and a backup restores byte for byte."""
    repository = Repository.create(life.folder, repository_id="r", name="r")
    kept = {layer.path.split("/")[1] for layer in life.chain.layers} if life.repository else set()
    for job in set(JOBS) - kept:
        repository.remove_job(CONTEXT, job)
    repository.remove_leftovers(KnownJobs(completed=kept))
    expected = {REPOSITORY_FACTS} | {
        f"{CONTEXT}/{job}/{name}"
        for job in kept
        for name in ("disk-0.qcow2", "disk-0.manifest", "job.json")
    }
    found = {
        str(path.relative_to(life.folder)) for path in life.folder.rglob("*") if path.is_file()
    }
    assert found == expected
    chain = (
        life.chain
        if life.repository
        else BackedUpDisk(repository, GuestDisk(len(DISK) * CLUSTER_BYTES))
    )
    chain.repository = repository
    written = chain.disk.write({0: DISK if chain.base is None else "Q"})
    writer = repository.new_layer(identity("job-9", chain.disk.capacity_bytes), chain.base)
    for frame in encoded(chain.disk, written, keep_zeros=chain.base is not None):
        writer.append(frame)
    sealed = writer.seal("change/job-9")
    chain.sealed_as(sealed, "job-9")
    assert chain.restored() == chain.disk.non_zero()
    if thorough:
        assert_clean(life.folder / sealed.path)
        assert_same_as_guest(life.folder / sealed.path, chain.disk, tmp_path)


# A quota is to the hub what a full disk is.
@pytest.mark.parametrize("fault", [one for one in Fault if one is not Fault.QUOTA])
def test_hub_survives_each_failing_call_of_a_backup(
    fault: Fault, tmp_path: Path, tally: Tally
) -> None:
    with small_hub(tmp_path) as hub:
        kept = hub.backup("AB.C")
        for nth in nth_calls():
            calls = FaultyCalls(fault, nth)
            hub.repair = calls.repair
            with replaced(calls):
                ended = hub.try_backup("RB0D")
                calls.repair()
                hub.assert_in_order()
            if not calls.fired:
                break
            tally.count(_FAULTS)
            if ended is not None and ended.status != pb.BACKUP_STATUS_COMPLETED:
                assert ended.status == pb.BACKUP_STATUS_FAILED
                assert ended.error.reason in _REASONS.get(fault, _ANY), ended.error
        assert nth > (5 if fault in (Fault.SHORT_WRITE, Fault.TORN_SYNC) else 15)
        again = hub.backup("XY0Z")
        hub.assert_restores(again, "XY0Z")
        hub.assert_restores(kept, "AB.C")
