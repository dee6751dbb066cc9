"""Disks of the simulated host read through NFC, compared with what they hold."""

from dataclasses import replace
from typing import Literal

import pytest

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.transports.errors import (
    AllocationUnknown,
    NfcCertificateMismatch,
    NfcOpenRefused,
    NfcRefused,
    NfcWrongSize,
)
from agent.transports.nfc.aio import Compression
from agent.transports.nfc.reader import NfcDiskReader
from agent.vsphere.errors import PermissionMissing, VsphereFault
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import CAPACITY, K, content, pieces, take, whole

GIB = 1 << 30


@pytest.fixture
def vm(simulated: SimulatedSite) -> SimulatedVm:
    return simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(1))])


@pytest.mark.parametrize("transport", ["nbdssl", "nbd"])
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "out of order"])
def test_frozen_disk_is_read_as_it_was_at_the_snapshot(
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    transport: Literal["nbdssl", "nbd"],
    shuffled: bool,
) -> None:
    simulated.behaviour.shuffle_fragments = shuffled
    with VsphereSite.connect(replace(settings, transport=transport)) as vsphere:
        snapshot = take(vsphere, vm)
        vm.disks[0].write(0, b"after the snapshot" * 1000)
        with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
            assert reader.capacity_bytes == CAPACITY
            assert whole(reader) == content(1)
            assert whole(reader, longest=5 * 512 * 7) == content(1)


@pytest.mark.parametrize("compression", list(Compression), ids=lambda one: one.name)
@pytest.mark.parametrize("transport", ["nbdssl", "nbd"])
def test_every_compression_gives_the_same_bytes(
    vsphere: VsphereSite,
    vm: SimulatedVm,
    compression: Compression,
    transport: Literal["nbdssl", "nbd"],
) -> None:
    snapshot = take(vsphere, vm)
    disk = snapshot.disks[0]
    ticket = vsphere._tickets.for_disk(vm.moid, disk.key)
    with NfcDiskReader.open(
        ticket, disk.file_name, transport=transport, compression=compression, timeout_s=20
    ) as reader:
        assert whole(reader) == content(1)


def test_allocated_areas_hold_all_data_of_a_huge_sparse_disk(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    capacity = 102 * GIB + 512
    vm = simulated.add_vm("huge", disks=[DiskSpec(capacity_bytes=capacity)])
    written = {0: b"boot", 40 * GIB - 2: b"over the grid", 102 * GIB: b"tail"}
    for offset, data in written.items():
        vm.disks[0].write(offset, data)
    snapshot = take(vsphere, vm)
    with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
        areas = reader.allocated_areas()
        assert areas == [
            Area(0, K),
            Area(40 * GIB - K, 2 * K),
            Area(102 * GIB, 512),
        ]
        found = {one.offset: one.data for one in reader.read(pieces(areas))}
    assert found[0] == b"boot".ljust(K, b"\0")
    assert found[40 * GIB - K] == (bytes(K - 2) + b"over the grid").ljust(2 * K, b"\0")
    assert found[102 * GIB] == b"tail".ljust(512, b"\0")


def test_host_that_refuses_the_allocation_query_is_read_all_the_same(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    simulated.faults.set("nfc-error-reply", on="allocated")
    snapshot = take(vsphere, vm)
    with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
        with pytest.raises(AllocationUnknown):
            reader.allocated_areas()
        assert whole(reader) == content(1)


def test_disks_of_a_vm_are_read_side_by_side(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm(
        "two", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(n)) for n in (2, 3)]
    )
    snapshot = take(vsphere, vm)
    with (
        vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as first,
        vsphere.open_disk(snapshot, snapshot.disks[1], Cancellation()) as second,
    ):
        areas = list(pieces([Area(0, CAPACITY)], K - 512))
        both = zip(first.read(areas), second.read(areas), strict=True)
        read = [(one.data, other.data) for one, other in both]
    assert b"".join(one for one, _ in read) == content(2)
    assert b"".join(other for _, other in read) == content(3)


def test_ticket_is_used_once_and_for_its_vm_only(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    disk = snapshot.disks[0]
    ticket = vsphere._tickets.for_disk(vm.moid, disk.key)
    assert len(ticket.certificate_sha256) == 64
    with pytest.raises(NfcOpenRefused):
        NfcDiskReader.open(ticket, "[datastore1] other/other.vmdk", timeout_s=20)
    with pytest.raises(NfcRefused):
        NfcDiskReader.open(ticket, disk.file_name, timeout_s=20)


def test_current_link_of_a_running_vm_is_refused(vsphere: VsphereSite, vm: SimulatedVm) -> None:
    vm.power("poweredOn")
    (info,) = [one for one in vsphere.virtual_machines() if one.moref == vm.moid]
    ticket = vsphere._tickets.for_disk(vm.moid, info.disks[0].key)
    with pytest.raises(NfcOpenRefused):
        NfcDiskReader.open(ticket, info.disks[0].file_name, timeout_s=20)


def test_ticket_with_another_thumbprint_is_not_followed(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    ticket = vsphere._tickets.for_disk(vm.moid, vm.disks[0].key)
    with pytest.raises(NfcCertificateMismatch):
        NfcDiskReader.open(replace(ticket, thumbprint_sha1="00" * 20), "[x] y", timeout_s=20)
    with pytest.raises(NfcCertificateMismatch):
        NfcDiskReader.open(replace(ticket, certificate_sha256="00" * 32), "[x] y", timeout_s=20)


def test_file_of_another_size_than_the_snapshot_says_is_not_read(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    wrong = replace(snapshot.disks[0], capacity_bytes=CAPACITY + 512)
    with pytest.raises(NfcWrongSize, match="capacity"):
        vsphere.open_disk(snapshot, wrong, Cancellation())


@pytest.mark.parametrize("transport", ["nbdssl", "nbd"])
@pytest.mark.parametrize(
    ("flavour", "names"),
    [
        ("esxi", ("HostAgent", "ha-nfc-service", "nfc")),
        ("esxi_ha_nfc", ("HostAgent", "ha-nfc", "ha-nfc")),
        ("vcenter", ("VirtualCenter", "nfcService", "vpxa-nfc")),
    ],
)
def test_disk_is_read_whatever_the_nfc_service_is_called(
    simulated: SimulatedSite,
    settings: VsphereSettings,
    vm: SimulatedVm,
    flavour: Literal["esxi", "esxi_ha_nfc", "vcenter"],
    names: tuple[str, str, str],
    transport: Literal["nbdssl", "nbd"],
) -> None:
    simulated.behaviour.flavour = flavour
    api_type, moref, service = names
    with VsphereSite.connect(replace(settings, transport=transport)) as vsphere:
        assert vsphere.about().api_type == api_type
        snapshot = take(vsphere, vm)
        with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
            assert whole(reader) == content(1)
        assert vsphere._tickets._morefs == (moref,)
        ticket = vsphere._tickets.for_disk(vm.moid, snapshot.disks[0].key)
        assert (ticket.host, ticket.service) == ("127.0.0.2", service)


def test_vm_that_is_gone_is_not_taken_for_another_name_of_the_service(
    vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    with pytest.raises(VsphereFault, match="VirtualMachine:4711"):
        vsphere._tickets.for_disk("4711", 2000)
    assert len(vsphere._tickets._morefs) == 2
    vsphere._tickets.for_disk(vm.moid, 2000)
    assert vsphere._tickets._morefs == ("ha-nfc-service",)


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("nfc_methods_refused", "NfcGetVmFiles"),
        ("privileges_missing", "VirtualMachine.Provisioning.GetVmFiles"),
    ],
)
def test_ticket_of_one_disk_serves_where_that_of_the_vm_is_refused(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, how: str, what: str
) -> None:
    setattr(simulated.behaviour, how, frozenset({what}))
    snapshot = take(vsphere, vm)
    with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
        assert whole(reader) == content(1)
    simulated.behaviour.privileges_missing = frozenset(
        f"VirtualMachine.Provisioning.{one}" for one in ("GetVmFiles", "DiskRandomRead")
    )
    simulated.behaviour.nfc_methods_refused = frozenset()
    with pytest.raises(PermissionMissing, match="GetVmFiles"):
        vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation())
