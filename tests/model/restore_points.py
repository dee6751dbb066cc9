"""Every completed backup, restored and compared: at once, and all of them again at the end."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sendense import Backup, BackupDisk, BackupStatus, BackupType, ReadMethod
from tests.model.disks import Image
from tests.model.samples import Drawn, SampleLog, Samples
from tests.model.world import World

LEAVES_OUT: Final = "cbt-omit"  # tracking does not tell of clusters, changed or not
DENIES: Final = "allocation-wrong"  # the host calls allocated clusters unallocated


@dataclass
class RestorePoint:
    """A completed job. `truth` is the model's, `held` what it restores to, by disk uuid.

    They differ where a lie of the tracking survived, and nowhere else.
    """

    job: Backup
    truth: dict[str, Image]
    held: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Lie:
    """A fault of the simulator about some clusters of a disk, by its uuid and its key."""

    fault: str  # LEAVES_OUT or DENIES
    uuid: str
    key: int
    clusters: range


@dataclass(frozen=True)
class Survivor:
    """A lie that no sampled cluster fell into."""

    job_id: str
    disk_index: int
    wrong: set[int]  # clusters that the restore point has as its base had them, or as zeros
    bound: int  # that was told
    drawn: Drawn

    def __str__(self) -> str:
        draws = " and ".join(f"{one.drawn} of {one.population}" for one in self.drawn.sample.draws)
        return (
            f"{self.job_id} disk {self.disk_index}: {len(self.wrong)} clusters are wrong, and "
            f"fewer than {self.bound} are told of; {draws} clusters were drawn; that none was hit "
            f"had a probability of {self.drawn.chance_to_miss(self.wrong):.1%}"
        )


class RestorePoints:
    """The completed backups of one VM, oldest first."""

    def __init__(self, world: World, samples: SampleLog) -> None:
        self._world = world
        self._samples = samples
        self.points: list[RestorePoint] = []
        self.survivors: list[Survivor] = []
        self.distrusted = False  # the context's tracking
        self.caught = 0  # backups that found changes which tracking had left out

    def add(self, job: Backup, truth: dict[str, Image], lie: Lie | None, calm: set[str]) -> None:
        """Restore a new one and judge it, by disk uuid.

        `lie`: what the site was told to say while it was made; `calm`: disks that must
        have been read by what tracking tells, since nothing speaks against it.
        """
        assert job.status == BackupStatus.COMPLETED
        assert {disk.disk_uuid for disk in job.disks} == truth.keys(), "disks of the VM are missing"
        point = RestorePoint(job, truth)
        for disk in job.disks:
            uuid = disk.disk_uuid
            self._check_method(job, disk, calm=uuid in calm)
            image = Image.of_file(self._world.restore(job.job_id, disk.disk_index))
            self._judge(disk, image, truth[uuid], lie if lie and lie.uuid == uuid else None)
            point.held[uuid] = image
        self._check_trust(job)
        self.points.append(point)

    def _check_method(self, job: Backup, disk: BackupDisk, *, calm: bool) -> None:
        """A base where there is one, tracking where it can be used, and a warning where not."""
        method, where = disk.read_method, f"{disk.job_id} {disk.label}"
        last = self.points[-1].job if self.points else Backup()
        same = [
            one
            for one in last.disks
            if (one.disk_uuid, one.vmware_disk_key) == (disk.disk_uuid, disk.vmware_disk_key)
        ]
        if job.requested_type == BackupType.FULL or not same:
            assert method == ReadMethod.ALLOCATED, where
            assert not disk.base_disk_id, where
            return
        assert disk.base_disk_id == same[0].disk_id, where
        missed = disk.sampling.clusters_missed > 0
        told = {one.code for one in job.warnings if disk.label in one.message}
        if calm and not missed and "ALLOCATION_WRONG" not in told:
            assert method == ReadMethod.CHANGED, f"{where}: {disk.read_reason}"
        if method != ReadMethod.CHANGED:
            code = "CBT_MISSED_CHANGES" if missed else "COMPARED_INSTEAD_OF_TRACKING"
            assert method == ReadMethod.COMPARED, where
            assert disk.read_reason, where
            assert code in told, where

    def _check_trust(self, job: Backup) -> None:
        """A miss makes the context distrusted until a job has read every disk whole."""
        methods = {disk.read_method for disk in job.disks}
        if any(disk.sampling.clusters_missed for disk in job.disks):
            self.distrusted = True
        elif ReadMethod.CHANGED not in methods:
            self.distrusted = False
        context = self._world.client.get_context(job.context_id)
        assert context.HasField("tracking_distrusted_since") == self.distrusted

    def check_all(self) -> None:
        """Every restore point still restores to what it did, and its layers are sound."""
        for point in self.points:
            for disk in point.job.disks:
                image = Image.of_file(self._world.restore(point.job.job_id, disk.disk_index))
                assert image == point.held[disk.disk_uuid], (
                    f"{point.job.job_id} disk {disk.disk_index} restores to something else now"
                )

    def check_layers(self, sample: int) -> None:
        """`qemu-img check` finds nothing in the newest layers; half as many of older ones."""
        disks = [disk for point in self.points for disk in point.job.disks]
        for disk in [*disks[-sample:], *disks[: -sample or None][: sample // 2]]:
            check_layer(self._world.layer(disk.job_id, disk.disk_index))

    def _judge(self, disk: BackupDisk, image: Image, truth: Image, lie: Lie | None) -> None:
        where = f"{disk.job_id} disk {disk.disk_index}"
        assert image.capacity_bytes == truth.capacity_bytes, where
        wrong = image.differing(truth)
        samples = self._samples.of(disk.job_id, disk.disk_index)
        self._check_sampling(disk, truth, samples)
        held = Image(truth.capacity_bytes, {})
        suspects = set(lie.clusters) if lie else set()
        if disk.read_method == ReadMethod.CHANGED:
            base = self._base(disk)
            held = base.held[disk.disk_uuid]
            if lie and lie.fault == DENIES:
                suspects = set()
            suspects |= held.differing(base.truth[disk.disk_uuid])
        elif lie and lie.fault == LEAVES_OUT:
            suspects = set()
        assert wrong <= suspects, (
            f"{where}: wrong clusters {sorted(wrong - suspects)}, no lie there; "
            f"read {disk.read_method}"
        )
        neither = {one for one in wrong if image.cluster(one) != held.cluster(one)}
        assert not neither, f"{where}: neither the guest's nor the base's: {sorted(neither)}"
        assert not wrong & samples.clusters, f"{where}: sampled, and not stored"
        assert wrong <= samples.last.population, f"{where}: wrong although it was read"
        if wrong:
            bound = disk.sampling.undetected_clusters_bound
            self.survivors.append(
                Survivor(disk.job_id, disk.disk_index, wrong, bound, samples.last)
            )

    def _check_sampling(self, disk: BackupDisk, truth: Image, samples: Samples) -> None:
        """What the catalog tells of the samples is so, and a sampled difference was acted upon."""
        where = f"{disk.job_id} disk {disk.disk_index}"
        told, tracking = disk.sampling, samples.of_tracking
        assert told.clusters_sampled == len(samples.clusters), where
        if samples.clusters:
            assert told.clusters_drawn_from == len(samples.last.population), where
            assert told.undetected_clusters_bound <= told.clusters_drawn_from + 1, where
        if tracking is None:
            assert disk.read_method != ReadMethod.CHANGED, f"{where}: tracking was not checked"
            assert told.clusters_missed == 0, where
            return
        unseen = tracking.population & self._base(disk).held[disk.disk_uuid].differing(truth)
        if unseen & set(tracking.sample.clusters):
            assert disk.read_method == ReadMethod.COMPARED, f"{where}: a difference was overlooked"
            self.caught += 1
        if disk.read_method == ReadMethod.COMPARED:
            assert told.clusters_missed == len(unseen - samples.last.population), where
        else:
            assert told.clusters_missed == 0, where

    def _base(self, disk: BackupDisk) -> RestorePoint:
        return next(one for one in self.points if one.job.job_id == disk.base_job_id)


def check_layer(path: Path) -> None:
    """Raises AssertionError when qemu-img finds an error or a leak."""
    done = subprocess.run(
        ["qemu-img", "check", "--output=json", "-f", "qcow2", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{path}: {done.stdout}{done.stderr}"
    report = json.loads(done.stdout)
    assert report["check-errors"] == 0
    assert not {"corruptions", "leaks"} & report.keys(), report
