"""The job's snapshot removed by others while the job holds no disk open: nothing torn is kept."""

from pathlib import Path
from typing import Any

import pytest

from agent.areas import Area
from agent.backup_disk import DiskBackup
from agent.vsphere.site import VsphereSite
from sendense import Backup, BackupStatus
from sendense.v1 import agent_session_pb2 as pb
from tests.hostile.guest import add_disk, assert_restores, codes, frozen
from tests.model.world import World, running_world

pytestmark = pytest.mark.hostile


def assert_vanished(world: World, job: Backup) -> None:
    """The job failed for it, and nothing of it is left to restore."""
    assert job.status == BackupStatus.FAILED, job
    assert job.error.reason == "SNAPSHOT_VANISHED"
    assert f"of VM {world.vm.moid} was removed" in job.error.message


@pytest.mark.parametrize("running", [True, False], ids=["running", "off"])
@pytest.mark.parametrize("another", [False, True], ids=["none left", "another made"])
def test_snapshot_removed_between_two_connections_fails_the_job(
    world: World, running: bool, another: bool
) -> None:
    disk = add_disk(world.vm, 160, filled=160)
    full = world.completed()
    contents = frozen(disk)
    disk.write(0, 160)
    world.vm.power("poweredOn" if running else "poweredOff")
    cut = world.site.faults.set("nfc-cut", vm=world.vm.name, at_byte=4 << 20, times=1)
    refused = world.site.faults.set("nfc-ticket-refused", vm=world.vm.name, skip=1)
    held = world.start()
    assert refused.wait_fired(30)
    world.vm.remove_snapshot(world.vm.snapshots[0])
    disk.write(0, 160)
    if another:
        world.vm.create_snapshot("somebody else's")
    world.site.faults.clear(refused)
    assert_vanished(world, world.wait(held))
    assert cut.fired == 1
    world.site.faults.clear()
    assert_restores(world, full, contents)
    assert_restores(world, world.completed(), frozen(disk))


def test_snapshot_removed_between_two_disks_fails_the_job(tmp_path: Path) -> None:
    with running_world(tmp_path / "world", timeout_s=3, disks_in_parallel=1) as world:
        first, second = add_disk(world.vm), add_disk(world.vm)
        refused = world.site.faults.set("nfc-ticket-refused", vm=world.vm.name, skip=1)
        held = world.start()
        assert refused.wait_fired(30)
        world.vm.remove_snapshot(world.vm.snapshots[0])
        first.write(0, 32)
        second.write(0, 32)
        world.vm.create_snapshot("somebody else's")
        world.site.faults.clear(refused)
        assert_vanished(world, world.wait(held))
        assert_restores(world, world.completed(), frozen(first, second))


def test_snapshot_removed_while_its_disk_waits_for_the_host_s_budget_fails_the_job(
    tmp_path: Path,
) -> None:
    settings = {"nfc_connections_per_host": 1, "inventory_interval_s": 0.2}
    with running_world(tmp_path / "world", **settings) as world:
        disk = add_disk(world.vm)
        other = world.site.add_vm("pgtest2")
        blocking = add_disk(other)
        world.wait_agent()
        stall = world.site.faults.set("nfc-stall", vm=other.name)
        holds_the_host = world.start(vm=other)
        assert stall.wait_fired(30)
        tickets = world.site.faults.calls("NfcGetVmFiles")
        held = world.start()
        world.wait_frozen(held)
        world.vm.remove_snapshot(world.vm.snapshots[0])
        disk.write(0, 32)
        world.site.faults.clear(stall)
        assert_vanished(world, world.wait(held))
        job = world.wait(holds_the_host)
        assert job.status == BackupStatus.COMPLETED, job
        assert_restores(world, job, frozen(blocking))
        assert world.site.faults.calls("NfcGetVmFiles") == tickets


def test_snapshot_removed_after_the_last_disk_fails_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = add_disk(world.vm)
    back_up, removed = DiskBackup.run, []

    def then_removed(self: DiskBackup, plan: pb.DiskPlan) -> None:
        back_up(self, plan)
        removed.extend(world.vm.snapshots)
        world.vm.remove_snapshot(world.vm.snapshots[0])

    with monkeypatch.context() as patch:
        patch.setattr(DiskBackup, "run", then_removed)
        assert_vanished(world, world.back_up())
    assert len(removed) == 1
    assert_restores(world, world.completed(), frozen(disk))


def test_snapshot_removed_before_changes_are_asked_for_fails_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = add_disk(world.vm)
    full = world.completed()
    contents = frozen(disk)
    disk.write(3)
    ask, removed = VsphereSite.changed_areas, []

    def removed_before(self: VsphereSite, *question: Any) -> list[Area]:
        removed.extend(world.vm.snapshots)
        world.vm.remove_snapshot(world.vm.snapshots[0])
        disk.write(5)
        return ask(self, *question)

    tickets = world.site.faults.calls("NfcGetVmFiles")
    with monkeypatch.context() as patch:
        patch.setattr(VsphereSite, "changed_areas", removed_before)
        assert_vanished(world, world.back_up())
    assert len(removed) == 1
    assert world.site.faults.calls("NfcGetVmFiles") == tickets
    assert_restores(world, full, contents)
    job = world.completed()
    assert codes(job) == []
    assert_restores(world, job, frozen(disk))


def test_job_whose_snapshot_cannot_be_looked_at_in_the_end_is_not_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.vsphere.frozen.LAST_LOOK_S", 0.0)
    back_up = DiskBackup.run
    # No inventory while the test runs: it would ask vSphere, too.
    with running_world(tmp_path / "world", inventory_interval_s=3600) as world:
        disk = add_disk(world.vm)

        def then_refused(self: DiskBackup, plan: pb.DiskPlan) -> None:
            back_up(self, plan)
            world.site.faults.set("method-fail", method="RetrievePropertiesEx", times=1)

        with monkeypatch.context() as patch:
            patch.setattr(DiskBackup, "run", then_refused)
            job = world.back_up()
        world.site.faults.assert_all_fired()
        assert job.status == BackupStatus.FAILED, job
        assert job.error.reason == "VSPHERE_FAULT"
        assert world.vm.snapshots == []
        assert_restores(world, world.completed(), frozen(disk))
