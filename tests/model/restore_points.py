"""Every completed backup, restored and compared: at once, and all of them again at the end."""

import json
import math
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from sendense import Backup, BackupDisk, BackupStatus, BackupType, ReadMethod
from tests.model.disks import Image
from tests.model.samples import Drawn, SampleLog
from tests.model.world import World


@dataclass
class RestorePoint:
    """A completed job. `truth` is the model's, `held` what it restores to, by disk uuid.

    They differ where a lie of the tracking survived, and nowhere else.
    """

    job: Backup
    truth: dict[str, Image]
    held: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Survivor:
    """A lie that no sampled cluster fell into."""

    job_id: str
    disk_index: int
    clusters: int  # that the restore point has as its base had them
    allocated: int  # of these, the ones that an even draw could have hit
    drawn: Drawn

    @property
    def chance(self) -> float:
        """That the even draw misses all of them: C(N - b, n) / C(N, n)."""
        total, evenly = len(self.drawn.population), self.drawn.sample.drawn_evenly
        return math.comb(total - self.allocated, evenly) / math.comb(total, evenly)

    def __str__(self) -> str:
        return (
            f"{self.job_id} disk {self.disk_index}: {self.clusters} clusters as the base had them, "
            f"{self.allocated} of them among the {len(self.drawn.population)} of which "
            f"{self.drawn.sample.drawn_evenly} were drawn; "
            f"that none was hit had a probability of {self.chance:.1%}"
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

    def add(
        self, job: Backup, truth: dict[str, Image], lies: dict[str, set[int]], calm: set[str]
    ) -> None:
        """Restore a new one and judge it, by disk uuid.

        `lies`: clusters that tracking was told to leave out; `calm`: disks that must
        have been read by what tracking tells, since nothing speaks against it.
        """
        assert job.status == BackupStatus.COMPLETED
        assert {disk.disk_uuid for disk in job.disks} == truth.keys(), "disks of the VM are missing"
        point = RestorePoint(job, truth)
        for disk in job.disks:
            uuid = disk.disk_uuid
            self._check_method(job, disk, calm=uuid in calm)
            image = Image.of_file(self._world.restore(job.job_id, disk.disk_index))
            self._judge(disk, image, truth[uuid], lies.get(uuid, set()))
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
        if calm and not missed:
            assert method == ReadMethod.CHANGED, f"{where}: {disk.read_reason}"
        if method != ReadMethod.CHANGED:
            code = "CBT_MISSED_CHANGES" if missed else "COMPARED_INSTEAD_OF_TRACKING"
            assert method == ReadMethod.COMPARED, where
            assert disk.read_reason, where
            assert code in {one.code for one in job.warnings if disk.label in one.message}, where

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

    def _judge(self, disk: BackupDisk, image: Image, truth: Image, lied: set[int]) -> None:
        where = f"{disk.job_id} disk {disk.disk_index}"
        assert image.capacity_bytes == truth.capacity_bytes, where
        wrong = image.differing(truth)
        drawn = self._samples.of(disk.job_id, disk.disk_index)
        if drawn is not None:
            self._check_sampling(disk, truth, drawn)
        if disk.read_method != ReadMethod.CHANGED:
            assert not wrong, f"{where}: wrong clusters {sorted(wrong)}, read {disk.read_method}"
            return
        assert drawn is not None, f"{where}: tracking was believed without a sample"
        base = self._base(disk)
        held = base.held[disk.disk_uuid]
        suspects = lied | held.differing(base.truth[disk.disk_uuid])
        assert wrong <= suspects, (
            f"{where}: wrong clusters {sorted(wrong - suspects)}, no lie there"
        )
        neither = {one for one in wrong if image.cluster(one) != held.cluster(one)}
        assert not neither, f"{where}: neither the guest's nor the base's: {sorted(neither)}"
        if wrong:
            missed = len(wrong & drawn.population)
            self.survivors.append(Survivor(disk.job_id, disk.disk_index, len(wrong), missed, drawn))

    def _check_sampling(self, disk: BackupDisk, truth: Image, drawn: Drawn) -> None:
        """What the catalog tells of a sample is so, and a sampled difference was acted upon."""
        where = f"{disk.job_id} disk {disk.disk_index}"
        told = disk.sampling
        assert told.clusters_sampled == len(drawn.sample.clusters), where
        assert told.clusters_drawn_from == len(drawn.population), where
        unseen = self._base(disk).held[disk.disk_uuid].differing(truth) - drawn.called_changed
        if unseen & set(drawn.sample.clusters):
            assert disk.read_method == ReadMethod.COMPARED, f"{where}: a difference was overlooked"
            assert told.clusters_missed == len(unseen), where
            self.caught += 1
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
