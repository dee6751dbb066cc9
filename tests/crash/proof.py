"""Whether a restore point is what the guest had, and whether anything was left behind."""

from collections.abc import Sequence
from pathlib import Path

from hub.catalog.check import Finding, check_database, check_rows
from hub.catalog.engine import Catalog
from hub.jobs.check_layers import check_layers
from sendense import Backup, BackupStatus
from simulator.machines import SimulatedVm
from tests.crash.installation import Installation
from tests.end_to_end.processes import wait_for
from tests.hostile.layers import backing_file
from tests.model.disks import Image
from tests.model.restore_points import check_layer

MOST_RESENT_BYTES = 64 << 20
_OF_A_JOB = "job.json"


def assert_restores(there: Installation, job: Backup, moments: Sequence[dict[str, Image]]) -> None:
    """All disks of the job restore to what they held at one of these moments, by disk uuid.

    Their layers are sound, and each is backed by that of its base.
    """
    assert BackupStatus(job.status) == BackupStatus.COMPLETED, f"{job}\n{there.logs()}"
    restored = {
        disk.disk_uuid: Image.of_file(there.restore(job, disk.disk_index)) for disk in job.disks
    }
    if restored not in list(moments):
        raise AssertionError(_differences(job, restored, moments))
    for disk in job.disks:
        layer = there.layer(job, disk.disk_index)
        check_layer(layer)
        assert backing_file(layer) == _base(there, disk.base_job_id, disk.disk_uuid)


def assert_nothing_is_left(there: Installation) -> None:
    """Neither snapshots of the product nor files that no row names; the catalog keeps its rules.

    Removals may be under way: they are waited for.
    """
    wait_for("the site has no snapshots", lambda: not _snapshots(there.site.vms))
    expected = _files_of_rows(there)
    try:
        wait_for("the repository holds the files of rows alone", lambda: there.files() == expected)
    except AssertionError:
        found = there.files()
        raise AssertionError(
            f"files without a row: {sorted(found - expected)}; "
            f"rows without a file: {sorted(expected - found)}\n{there.logs()}"
        ) from None
    assert catalog_findings(there) == []


def catalog_findings(there: Installation) -> list[Finding]:
    """What `sendense-hub db check` would find."""
    catalog = Catalog(there.catalog_url)
    try:
        return [
            *check_database(catalog),
            *check_rows(catalog)[1],
            *check_layers(catalog).findings,
        ]
    finally:
        catalog.close()


def most_resent(job: Backup, kills: int = 1) -> int:
    """The most payload bytes sent again for a disk. Raises AssertionError beyond the limit."""
    most = max((disk.bytes_resent for disk in job.disks), default=0)
    assert most <= kills * MOST_RESENT_BYTES, f"{most} bytes were sent again: {job}"
    return int(most)


def _snapshots(vms: Sequence[SimulatedVm]) -> list[str]:
    return [one.name for vm in vms for one in vm.snapshots]


def _base(there: Installation, job_id: str, disk_uuid: str) -> Path | None:
    if not job_id:
        return None
    job = there.client.get_backup(job_id)
    (index,) = (one.disk_index for one in job.disks if one.disk_uuid == disk_uuid)
    return there.layer(job, index).resolve()


def _files_of_rows(there: Installation) -> set[str]:
    expected = {"sendense-repository.json"}
    for listed in there.client.list_backups(status=BackupStatus.COMPLETED):
        for disk in there.client.get_backup(listed.job_id).disks:
            layer = disk.qcow2_path
            expected |= {layer, layer.removesuffix(".qcow2") + ".manifest"}
            expected.add(str(Path(layer).parent / _OF_A_JOB))
    return expected


def _differences(
    job: Backup, restored: dict[str, Image], moments: Sequence[dict[str, Image]]
) -> str:
    told = [f"{job.job_id} restores to no moment of its guest; clusters that differ, by disk:"]
    for moment in moments:
        told.append(
            str(
                {
                    uuid: sorted(image.differing(moment[uuid]))[:20]
                    if uuid in moment
                    else "no disk"
                    for uuid, image in restored.items()
                }
            )
        )
    return "\n".join(told)
