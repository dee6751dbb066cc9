from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite

MIB = 1 << 20


def test_inventory_tells_vms_and_their_disks(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm(
        "pg test%1",
        disks=[
            DiskSpec(capacity_bytes=3 * MIB, controller=1),
            DiskSpec(capacity_bytes=2 * MIB + 512),
            DiskSpec(capacity_bytes=MIB, mode="independent_persistent"),
            DiskSpec(capacity_bytes=MIB, physical_rdm=True),
        ],
    )
    vm.power("poweredOff")
    vm.create_snapshot("by hand")
    (info,) = [one for one in vsphere.virtual_machines() if one.moref == vm.moid]
    assert info.instance_uuid == vm.instance_uuid
    assert info.power_state == "poweredOff"
    (snapshot,) = info.snapshots
    assert (snapshot.name, snapshot.moref) == ("by hand", vm.snapshots[0].moid)
    assert snapshot.created_at == vm.snapshots[0].created
    assert not info.consolidation_needed
    assert not info.change_tracking_enabled
    assert "Debian" in info.guest_full_name
    assert [disk.key for disk in info.disks] == sorted(disk.key for disk in vm.disks)
    by_key = {disk.key: disk for disk in info.disks}
    for disk in vm.disks:
        told = by_key[disk.key]
        assert (told.capacity_bytes, told.label) == (disk.capacity_bytes, disk.label)
        assert told.uuid.replace("-", "").lower() == disk.uuid.replace("-", "").lower()
    reasons = [disk.not_protectable_reason for disk in info.disks]
    assert len([reason for reason in reasons if "independent" in reason]) == 1
    assert len([reason for reason in reasons if "raw device" in reason]) == 1
    assert reasons.count("") == 2


def test_inventory_longer_than_a_page_is_complete(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    simulated.behaviour.page_objects = 3
    for number in range(10):
        simulated.add_vm(f"vm{number}", disks=[DiskSpec(capacity_bytes=MIB)])
    names = [one.name for one in vsphere.virtual_machines()]
    assert [f"vm{number}" for number in range(10)] == [one for one in names if one[:2] == "vm"]
    assert names == sorted(names)
