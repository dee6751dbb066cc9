"""The snapshot of a job that an earlier run of the agent began, found again."""

from collections.abc import Sequence

from agent.cancellation import Cancellation
from agent.errors import SnapshotLost
from agent.vsphere.api import vim
from agent.vsphere.devices import unescaped
from agent.vsphere.errors import VmNotFound, VsphereFault
from agent.vsphere.frozen import frozen_disks, patiently
from agent.vsphere.models import FrozenDisk, JobSnapshot, ToldDisk
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import NAME_PREFIX, is_of, snapshots_in


def find_snapshot(
    session: VsphereSession,
    *,
    moref: str,
    job_id: str,
    vm_moref: str,
    instance_uuid: str,
    quiesce: bool,
    owner: str,
    disks: Sequence[ToldDisk],
    cancellation: Cancellation,
) -> JobSnapshot:
    """The snapshot with this moref, seen to be the job's and to hold exactly these disks.

    Its warnings were told when it was taken. Waits out a vSphere that does not answer, for
    minutes. Raises SnapshotLost, VmNotFound, VsphereErrors, the error of `cancellation`.
    """

    def find() -> JobSnapshot:
        return _find(session, moref, job_id, vm_moref, instance_uuid, quiesce, owner, disks)

    return patiently(find, cancellation)


def _find(
    session: VsphereSession,
    moref: str,
    job_id: str,
    vm_moref: str,
    instance_uuid: str,
    quiesce: bool,
    owner: str,
    disks: Sequence[ToldDisk],
) -> JobSnapshot:
    name = NAME_PREFIX + job_id

    def lost(problem: str) -> SnapshotLost:
        return SnapshotLost(name, vm_moref, problem)

    vm = vim.VirtualMachine(vm_moref, session.stub)
    address = session.settings.address
    try:
        values = session.run(
            f"look for the snapshot of VM {vm_moref}",
            lambda: properties_of(session, vm, ["config.instanceUuid", "snapshot"]),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.is_object_gone:
            raise VmNotFound(address, vm_moref, instance_uuid, "it is gone") from error
        raise
    found_uuid = unescaped(values.get("config.instanceUuid") or "")
    if instance_uuid and found_uuid.lower() != instance_uuid.lower():
        problem = f"the id now belongs to another VM ({found_uuid})"
        raise VmNotFound(address, vm_moref, instance_uuid, problem)
    listed = snapshots_in(values.get("snapshot"))
    found = next((one for one in listed if one.moref == moref), None)
    if found is None:
        raise lost("is gone")
    if found.name != name or not is_of(owner, found):
        raise lost(f"is not what {moref} is now: {found.name}, {found.description}")
    try:
        frozen = frozen_disks(session, moref)
    except VsphereFault as error:
        if error.is_object_gone:
            raise lost("is gone") from error
        raise
    if [_told(disk) for disk in frozen] != list(disks):
        raise lost(f"holds other disks than it froze: {frozen} instead of {list(disks)}")
    return JobSnapshot(
        moref=moref,
        vm_moref=vm_moref,
        name=name,
        consistency="file_system" if quiesce and found.quiesced else "crash",
        disks=frozen,
        warnings=[],
        other_snapshots=[one.name for one in listed if one.moref != moref],
    )


def _told(disk: FrozenDisk) -> ToldDisk:
    return ToldDisk(disk.index, disk.key, disk.uuid, disk.capacity_bytes, disk.change_id)
