"""Snapshots of jobs on the simulated host: made, described, removed, swept."""

import pytest
from structlog.testing import capture_logs

from agent.cancellation import Cancellation
from agent.vsphere import snapshot_removal
from agent.vsphere.api import vim
from agent.vsphere.errors import (
    NoDisks,
    SnapshotFailed,
    SnapshotNotRemoved,
    VmNotFound,
    VsphereError,
)
from agent.vsphere.models import JobSnapshot
from agent.vsphere.properties import NEVER_ENDED, wait_for_task
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_tree import description_for
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

MIB = 1 << 20
OWNER = "agent-1"


def take(
    vsphere: VsphereSite, vm: SimulatedVm, job_id: str = "backup-pg-1", quiesce: bool = False
) -> JobSnapshot:
    return vsphere.take_snapshot(
        job_id=job_id,
        vm_moref=vm.moid,
        instance_uuid=vm.instance_uuid,
        quiesce=quiesce,
        owner=OWNER,
    )


def codes(snapshot: JobSnapshot) -> list[str]:
    return [warning.code for warning in snapshot.warnings]


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm(
        "pg", disks=[DiskSpec(capacity_bytes=4 * MIB), DiskSpec(capacity_bytes=MIB + 512)]
    )


def test_first_snapshot_enables_tracking_and_has_change_ids(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    assert not vm.change_tracking_enabled
    snapshot = take(vsphere, vm)
    assert vm.change_tracking_enabled
    (made,) = vm.snapshots
    assert made.name == snapshot.name == "sendense-backup-pg-1"
    assert "paris" in made.description
    assert OWNER in made.description
    assert snapshot.moref == made.moid
    assert snapshot.consistency == "crash"
    assert codes(snapshot) == []
    assert [disk.index for disk in snapshot.disks] == [0, 1]
    assert [disk.key for disk in snapshot.disks] == [disk.key for disk in vm.disks]
    assert [disk.capacity_bytes for disk in snapshot.disks] == [4 * MIB, MIB + 512]
    assert all("/" in disk.change_id for disk in snapshot.disks)
    assert [disk.file_name for disk in snapshot.disks] == [
        made.links[disk.key].file_name for disk in vm.disks
    ]
    vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []
    assert not vm.consolidation_needed
    vsphere.remove_snapshot(snapshot)  # repeating changes nothing


def test_tracking_stays_off_while_the_vm_has_snapshots_and_the_job_says_so(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    vm.create_snapshot("by hand")
    snapshot = take(vsphere, vm)
    assert not vm.change_tracking_enabled
    assert codes(snapshot) == ["CHANGE_TRACKING_NOT_ENABLED"]
    assert [disk.change_id for disk in snapshot.disks] == ["", ""]
    vsphere.remove_snapshot(snapshot)
    assert [one.name for one in vm.snapshots] == ["by hand"]


def test_tracking_that_cannot_be_enabled_does_not_stop_the_backup(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.fail_method("ReconfigVM_Task")
    assert codes(take(vsphere, vm)) == ["CHANGE_TRACKING_NOT_ENABLED"]
    simulated.faults.assert_all_fired()


def test_disks_outside_snapshots_are_skipped_by_name(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm(
        "mixed",
        disks=[
            DiskSpec(capacity_bytes=MIB, mode="independent_persistent"),
            DiskSpec(capacity_bytes=2 * MIB),
            DiskSpec(capacity_bytes=MIB, controller=2),
            DiskSpec(capacity_bytes=MIB, physical_rdm=True),
        ],
    )
    snapshot = take(vsphere, vm)
    assert codes(snapshot) == ["DISK_SKIPPED", "DISK_SKIPPED"]
    skipped = {warning.disk_label for warning in snapshot.warnings}
    assert skipped == {"Hard disk 1", "Hard disk 4"}
    # The label has a field of its own.
    assert not any("Hard disk" in warning.message for warning in snapshot.warnings)
    assert [(disk.index, disk.label) for disk in snapshot.disks] == [
        (0, "Hard disk 2"),
        (1, "Hard disk 3"),
    ]


@pytest.mark.parametrize(
    "disks", [[], [DiskSpec(capacity_bytes=MIB, mode="independent_persistent")]]
)
def test_vm_without_protectable_disks_gets_no_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite, disks: list[DiskSpec]
) -> None:
    vm = simulated.add_vm("bare", disks=disks)
    with pytest.raises(NoDisks, match="bare") as caught:
        take(vsphere, vm)
    assert caught.value.code == "NO_DISKS"
    assert vm.snapshots == []


def test_vm_that_is_gone_or_another_is_not_found(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    with pytest.raises(VmNotFound, match="gone"):
        vsphere.take_snapshot(
            job_id="x", vm_moref="999", instance_uuid="", quiesce=False, owner=OWNER
        )
    with pytest.raises(VmNotFound, match="another VM"):
        vsphere.take_snapshot(
            job_id="x", vm_moref=vm.moid, instance_uuid="50-1", quiesce=False, owner=OWNER
        )
    assert vm.snapshots == []


def test_quiesced_snapshot_says_so(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    vm.power("poweredOn")
    vm.tools_running = True
    assert take(vsphere, vm, quiesce=True).consistency == "file_system"
    assert [one.quiesced for one in vm.snapshots] == [True]


def test_guest_that_cannot_be_quiesced_is_backed_up_with_a_warning(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    vm.power("poweredOn")
    vm.tools_running = False
    snapshot = take(vsphere, vm, quiesce=True)
    assert snapshot.consistency == "crash"
    assert codes(snapshot) == ["QUIESCE_FAILED"]
    assert "VMware Tools" in snapshot.warnings[0].message


def test_snapshot_that_fails_tells_why(simulated: SimulatedSite, vsphere: VsphereSite) -> None:
    vm = simulated.add_vm(
        "shared",
        disks=[DiskSpec(capacity_bytes=MIB), DiskSpec(capacity_bytes=MIB, multi_writer=True)],
    )
    with pytest.raises(SnapshotFailed, match="multi-writer"):
        take(vsphere, vm)


def test_snapshot_whose_disks_cannot_be_read_is_removed_again(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(devices: object) -> None:
        raise VsphereError

    monkeypatch.setattr("agent.vsphere.frozen.frozen_disks_of", broken)
    with pytest.raises(VsphereError):
        take(vsphere, vm)
    assert vm.snapshots == []


def test_removal_that_failed_once_is_tried_again(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    simulated.faults.fail_method("RemoveSnapshot_Task")
    vsphere.remove_snapshot(snapshot)
    simulated.faults.assert_all_fired()
    assert vm.snapshots == []


def test_snapshot_that_stays_is_told(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    snapshot = take(vsphere, vm)
    simulated.faults.fail_method("RemoveSnapshot_Task")
    with pytest.raises(SnapshotNotRemoved, match=snapshot.name) as caught:
        vsphere.remove_snapshot(snapshot)
    assert caught.value.code == "SNAPSHOT_NOT_REMOVED"
    assert len(vm.snapshots) == 1


def test_removal_of_a_snapshot_of_a_vm_that_is_gone_is_done(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.remove_all_snapshots()
    vsphere.remove_snapshot(snapshot)
    gone = JobSnapshot("999-snapshot-1", "999", "sendense-x", "crash", [], [])
    vsphere.remove_snapshot(gone)


def test_disks_that_a_reader_kept_from_merging_are_consolidated(
    vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm.reader_patience_s = 0.01
    snapshot = take(vsphere, vm)
    monkeypatch.setattr(snapshot_removal, "_REMOVE_ATTEMPTS", 1)
    with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()):
        with pytest.raises(SnapshotNotRemoved, match="consolidation"):
            vsphere.remove_snapshot(snapshot)
        assert vm.consolidation_needed
    vsphere.remove_snapshot(snapshot)
    assert not vm.consolidation_needed


def test_leftovers_are_the_dead_snapshots_of_this_installations_agent(
    vsphere: VsphereSite, vm: SimulatedVm, simulated: SimulatedSite
) -> None:
    other = simulated.add_vm("web", disks=[DiskSpec(capacity_bytes=MIB)])
    vm.create_snapshot("by hand")
    vm.create_snapshot("sendense-by-hand", "somebody's")
    take(vsphere, vm, "dead-1")
    take(vsphere, vm, "alive")
    take(vsphere, other, "dead-2")
    vm.create_snapshot("sendense-elsewhere", description_for("agent-2", "paris", "elsewhere"))
    vm.create_snapshot("renamed", description_for(OWNER, "paris", "x"))
    leftovers = vsphere.find_leftovers(lambda: {"alive"}, OWNER)
    assert [(one.vm_moref, one.name) for one in leftovers] == [
        (vm.moid, "sendense-dead-1"),
        (other.moid, "sendense-dead-2"),
    ]
    for one in leftovers:
        vsphere.remove_leftover(one, NEVER_ENDED)
        vsphere.remove_leftover(one, NEVER_ENDED)  # repeating changes nothing
    assert {one.name for one in vm.snapshots} == {
        "by hand",
        "sendense-by-hand",
        "sendense-alive",
        "sendense-elsewhere",
        "renamed",
    }
    assert other.snapshots == []
    assert vsphere.find_leftovers(lambda: {"alive"}, OWNER) == []


def test_agent_of_a_site_that_was_renamed_finds_its_snapshots(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    vm.create_snapshot("sendense-1", description_for(OWNER, "rome", "1"))
    assert [one.name for one in vsphere.find_leftovers(set, OWNER)] == ["sendense-1"]


@pytest.mark.parametrize("owner", ["agent-10", "agent", 'agent-1" of', "Agent-1", ""])
def test_owners_whose_ids_resemble_keep_their_snapshots(
    vsphere: VsphereSite, vm: SimulatedVm, owner: str
) -> None:
    vm.create_snapshot("sendense-1", description_for(owner, "paris", "1"))
    vm.create_snapshot("sendense-2", 'Made by the Sendense agent of site "paris": job 2')
    with capture_logs() as logs:
        assert vsphere.find_leftovers(set, OWNER) == []
        assert vsphere.find_leftovers(set, OWNER) == []
    told = [line["snapshot"] for line in logs if line["event"] == "foreign_snapshot"]
    assert told == ["sendense-1", "sendense-2"]  # each once
    with pytest.raises(ValueError, match="owner"):
        vsphere.find_leftovers(set, "")


def test_other_snapshots_of_the_vm_are_named(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    assert take(vsphere, vm, "first").other_snapshots == []
    vm.create_snapshot("before%2fupdate")
    assert take(vsphere, vm, "second").other_snapshots == ["sendense-first", "before/update"]


def test_revert_that_keeps_tracking_is_only_known_by_the_snapshot_it_went_to(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.behaviour.reverted_tracking = "back"
    vsphere.remove_snapshot(take(vsphere, vm, "enables tracking"))
    vm.create_snapshot("by hand")
    vm.disks[0].write(0, b"goes with the revert")
    base = take(vsphere, vm, "base")
    vsphere.remove_snapshot(base)
    by_hand = vim.vm.Snapshot(vm.snapshots[0].moid, vsphere._session.stub)
    task = vsphere._session.run("revert", by_hand.RevertToSnapshot_Task)
    wait_for_task(vsphere._session, task, "revert", 20)
    vm.disks[0].write(2 * MIB, b"x")
    vsphere.remove_snapshot(take(vsphere, vm, "between"))
    now = take(vsphere, vm, "now")
    # Nothing in the answer shows that the disk's beginning is not what `base` holds:
    assert vsphere.changed_areas(now, now.disks[0], base.disks[0].change_id) == []
    assert base.other_snapshots == ["by hand"]  # so this job must not be a base
