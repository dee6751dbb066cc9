"""What administrators do to disks between backups: identity is the uuid and the key (row 9)."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from simulator.disks.disk import DiskSpec, SimulatedDisk
from simulator.disks.link import GRAIN
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import MIB, connect, frozen_disks, take_snapshot
from tests.unit.simulator.nfc_client import authenticate
from tests.unit.simulator.test_disks import new_vm

pytestmark = pytest.mark.hostile


def identities(seen: Any) -> list[tuple[int, str, int, int]]:
    """(key, uuid, controller key, unit) of the disks that the API shows."""
    return [
        (one.key, one.backing.uuid, one.controllerKey, one.unitNumber) for one in frozen_disks(seen)
    ]


def test_added_disk_takes_the_next_place(seen_vm: Any, vm: SimulatedVm) -> None:
    added = vm.add_disk(DiskSpec(MIB))
    assert (added.key, added.unit, added.label) == (2001, 1, "Hard disk 3")
    assert [key for key, *_ in identities(seen_vm)] == [2000, 2001, 2016]


def test_new_disk_in_the_place_of_a_removed_one_has_its_key_and_another_uuid(
    seen_vm: Any, vm: SimulatedVm
) -> None:
    old = vm.disks[0]
    old.write(0, b"old")
    file = old.current.file_name
    vm.remove_disk(old)
    assert [key for key, *_ in identities(seen_vm)] == [2016]
    new = vm.add_disk(DiskSpec(MIB))
    assert (new.key, new.label, new.current.file_name) == (old.key, old.label, file)
    assert new.uuid != old.uuid
    assert new.read(0, 3) == bytes(3)


def test_removed_disk_stays_in_the_snapshot_that_froze_it(seen_vm: Any, vm: SimulatedVm) -> None:
    disk = vm.disks[0]
    disk.write(0, b"kept")
    snapshot = take_snapshot(seen_vm, "by hand")
    vm.remove_disk(disk)
    new = vm.add_disk(DiskSpec(MIB))
    assert new.key == disk.key
    assert frozen_disks(snapshot)[0].backing.uuid == disk.uuid
    assert vm.frozen_content(vm.snapshots[0], disk.key)[:4] == b"kept"
    second = take_snapshot(seen_vm, "later")
    assert frozen_disks(second)[0].backing.uuid == new.uuid
    vm.remove_all_snapshots()
    assert vm.all_disks == [vm.disks[1], new]
    assert not vm.consolidation_needed


def test_removed_disk_is_readable_through_nfc_while_a_snapshot_holds_it(
    nfc: Any, vm: SimulatedVm
) -> None:
    vm.disks[0].write(0, b"kept")
    file = vm.create_snapshot("by hand").links[2000].file_name
    vm.remove_disk(vm.disks[0])
    client = nfc(vm)
    handle = int.from_bytes(client.open_file(file)[8:16], "little")
    assert client.read(handle, 0, 4) == b"kept"


def test_disk_behind_another_controller_has_another_key_and_the_same_uuid_and_changes(
    seen_vm: Any, vm: SimulatedVm
) -> None:
    vm.reconfigure(change_tracking_enabled=True)
    disk = vm.disks[0]
    disk.write(0, b"bytes")
    first = take_snapshot(seen_vm, "first")
    since = frozen_disks(first)[0].backing.changeId
    vm.move_disk(disk, 2, 5)
    assert identities(seen_vm)[-1] == (2000 + 32 + 5, disk.uuid, 1002, 5)
    assert identities(first)[0] == (2000, disk.uuid, 1000, 0)
    disk.write(MIB, b"more")
    second = take_snapshot(seen_vm, "second")
    answer = seen_vm.QueryChangedDiskAreas(second, 2037, 0, since)
    assert [(one.start, one.length) for one in answer.changedArea] == [(MIB, GRAIN)]
    vm.remove_all_snapshots()
    assert disk.read(0, 5) == b"bytes"
    assert len(vm.links(disk)) == 1


def test_reordered_disks_change_keys_and_labels_but_not_uuids(
    seen_vm: Any, vm: SimulatedVm
) -> None:
    first, second = vm.disks
    first.write(0, b"first")
    vm.reorder_disks([second, first])
    assert [(key, uuid) for key, uuid, *_ in identities(seen_vm)] == [
        (2000, second.uuid),
        (2016, first.uuid),
    ]
    assert (vm.disks[0].label, vm.disks[0].capacity_bytes) == ("Hard disk 1", 8 * MIB)
    assert vm.disks[1].read(0, 5) == b"first"


def test_places_that_are_taken_or_none_are_refused(vm: SimulatedVm) -> None:
    first, second = vm.disks
    for controller, unit in ((1, 0), (4, 0), (0, 7), (0, 16)):
        with pytest.raises(ValueError, match=r"already has|is not"):
            vm.move_disk(first, controller, unit)
    for order in ([first], [first, first], [first, second, second]):
        with pytest.raises(ValueError, match="name each disk once"):
            vm.reorder_disks(order)
    assert (first.key, second.key) == (2000, 2016)


def test_revert_brings_the_disks_of_the_snapshot_back(seen_vm: Any, vm: SimulatedVm) -> None:
    """Row 15."""
    removed, moved = vm.disks
    removed.write(0, b"old")
    was = identities(seen_vm)
    snapshot = vm.create_snapshot("before")
    removed.write(0, b"new")
    vm.remove_disk(removed)
    vm.move_disk(moved, 3)
    added = vm.add_disk(DiskSpec(MIB))
    vm.reconfigure(change_tracking_enabled=True)
    vm.revert(snapshot)
    assert identities(seen_vm) == was
    assert removed.read(0, 3) == b"old"
    assert added not in vm.all_disks
    assert not seen_vm.config.changeTrackingEnabled


def test_grown_disk_of_a_vm_with_snapshots_is_refused(seen_vm: Any, vm: SimulatedVm) -> None:
    """Row 8."""
    vm.create_snapshot("by hand")
    with pytest.raises(ValueError, match="a disk with snapshots cannot grow"):
        vm.disks[0].grow(32 * MIB)
    vm.remove_all_snapshots()
    vm.disks[0].grow(32 * MIB)
    assert frozen_disks(seen_vm)[0].capacityInBytes == 32 * MIB


def test_snapshot_says_when_it_was_taken(seen_vm: Any, vm: SimulatedVm) -> None:
    vm.create_snapshot("old", age=timedelta(days=30))
    (tree,) = seen_vm.snapshot.rootSnapshotList
    assert timedelta(days=29) < datetime.now(UTC) - tree.createTime < timedelta(days=31)


def test_disks_come_and_go_without_leaving_files(tmp_path: Path) -> None:
    vm = new_vm(tmp_path, *(DiskSpec(MIB) for _ in range(3)))
    kept: list[SimulatedDisk] = [vm.disks[0]]
    try:
        for number in range(5):
            kept[0].write(0, bytes([number]) * 10)
            vm.remove_disk(vm.disks[-1])
            vm.add_disk(DiskSpec(MIB))
            vm.create_snapshot(f"s{number}")
        vm.remove_all_snapshots()
        assert len(list(tmp_path.rglob("*.raw"))) == 3
        assert kept[0].read(0, 1) == b"\4"
    finally:
        vm.close()


def test_new_certificate_of_the_host_is_shown_by_api_nfc_and_tickets(
    site: SimulatedSite, vm: SimulatedVm
) -> None:
    before = site.certificate_pem
    api = connect(site)
    told = site.change_certificate()
    assert told == site.certificate_sha256
    assert site.certificate_pem != before
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(site, sslContext=ssl.create_default_context(cadata=before))
    with pytest.raises(OSError):  # the connection that it had
        api.CurrentTime()
    with pytest.raises(ssl.SSLCertVerificationError):
        api.CurrentTime()
    again = connect(site)
    assert vim.VirtualMachine(vm.moid, again._stub).name == vm.name
    address = ("127.0.0.2", site.nfc_port)
    token = site.tickets.issue(vm).token
    connection, lines = authenticate(address, token, "nfcssl", site.certificate_pem)
    assert lines[2] == f"200 {told}"
    connection.close()


def test_new_certificate_of_nfc_alone_is_not_the_one_that_tickets_name(
    site: SimulatedSite, vm: SimulatedVm, api: Any
) -> None:
    told = site.change_certificate("nfc")
    assert told != site.certificate_sha256
    assert api.CurrentTime()
    with pytest.raises(ssl.SSLCertVerificationError):
        authenticate(
            ("127.0.0.2", site.nfc_port),
            site.tickets.issue(vm).token,
            "nfc",
            site.certificate_pem,
        )


def test_changed_certificate_is_kept_by_the_next_run(site: SimulatedSite) -> None:
    told = site.change_certificate()
    site.close()
    with SimulatedSite(site.state_dir) as again:
        assert again.certificate_sha256 == told
    assert not list(site.state_dir.glob("*.unfinished"))
