"""NFC beyond the golden messages: real reads, limits, refusals, and connections that break."""

import os
import struct
import zlib
from collections.abc import Callable

import pytest

from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.machines import OperationRefused, SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.nfc_client import NfcClient, Refused, assemble, authenticate

MIB = 1 << 20
Connect = Callable[..., NfcClient]
BASE = "[datastore1] db 1/db 1.vmdk"
DELTA = "[datastore1] db 1/db 1-000001.vmdk"
SECOND = "[datastore1] db 1/db 1-000002.vmdk"


def handle_of(reply: bytes) -> int:
    found: int = struct.unpack_from("<Q", reply, 8)[0]
    return found


@pytest.fixture
def frozen(vm: SimulatedVm) -> bytes:
    """Two snapshots over data in base and delta; what the second froze of disk 0."""
    disk = vm.disks[0]
    disk.write(0, os.urandom(3 * MIB))
    disk.write(5 * MIB + 700, os.urandom(MIB))
    vm.create_snapshot("one")
    disk.write(MIB + 100, os.urandom(MIB))
    disk.trim(5 * MIB, MIB // 2)
    content = disk.content
    vm.create_snapshot("two")
    disk.write(0, b"later" * 1000)
    return content


@pytest.mark.parametrize("service", ["nfc", "nfcssl"])
@pytest.mark.parametrize("compression", [0, 1, 2, 3], ids=["none", "zlib", "fastlz", "skipz"])
@pytest.mark.parametrize("buffer_bytes", [GRAIN, 2 * MIB, 100_000])
def test_reads_of_a_frozen_delta_show_the_composed_disk(
    nfc: Connect, vm: SimulatedVm, frozen: bytes, service: str, compression: int, buffer_bytes: int
) -> None:
    client = nfc(vm, service=service, buffer_bytes=buffer_bytes)
    handle = handle_of(client.open_file(DELTA))
    for offset, length in ((0, 16 * MIB), (MIB - 1, 3 * MIB), (16 * MIB - 700, 700), (12345, 1)):
        found = client.read(handle, offset, length, compression)
        assert found == frozen[offset : offset + length]


def test_requests_outstanding_are_answered_out_of_order_when_asked(
    nfc: Connect, site: SimulatedSite, vm: SimulatedVm, frozen: bytes
) -> None:
    site.behaviour.shuffle_fragments = True
    client = nfc(vm)
    handle = handle_of(client.open_file(DELTA))
    length = MIB
    operations = {client.ask_read(handle, at, length): at for at in range(0, 8 * MIB, length)}
    answered = client.fragments(operations)
    for operation, fragments in answered.items():
        at = operations[operation]
        assert assemble(length, fragments) == frozen[at : at + length]
    orders = [[within for within, *_ in fragments] for fragments in answered.values()]
    assert any(order != sorted(order) for order in orders)


def test_compression_shrinks_what_shrinks(nfc: Connect, vm: SimulatedVm) -> None:
    vm.disks[0].write(0, b"text " * 10_000)
    vm.create_snapshot("one")
    client = nfc(vm)
    handle = handle_of(client.open_file(BASE))
    (fragment,) = client.fragments([client.ask_read(handle, 0, 40_000, 1)]).popitem()[1]
    assert fragment[2] == 1
    assert zlib.decompress(fragment[3]) == (b"text " * 10_000)[:40_000]
    assert len(fragment[3]) < 1000


def test_allocation_of_a_frozen_link_is_told_in_chunks(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    client = nfc(vm)
    handle = handle_of(client.open_file(DELTA))
    query = struct.pack("<QQQQQQ", handle, 0, 2 * GRAIN, 0, 128, 0)
    reply = client.call(13, query)
    assert struct.unpack_from("<Q", reply, 32)[0] == 128
    bitmap = client.receive(16)
    allocated = [bool(bitmap[bit // 8] >> bit % 8 & 1) for bit in range(128)]
    for chunk, said in enumerate(allocated):
        holds_data = any(frozen[chunk * 2 * GRAIN : (chunk + 1) * 2 * GRAIN])
        assert said or not holds_data
    assert allocated[:32] == [True] * 24 + [False] * 8
    assert allocated[40:44] == [False] * 4  # trimmed in the delta


@pytest.mark.parametrize(
    ("chunk", "start", "count"),
    [(GRAIN // 2, 0, 1), (GRAIN, 512, 1), (GRAIN, 0, 257), (GRAIN, 0, 0), (3 * GRAIN // 2, 0, 1)],
)
def test_allocation_query_off_the_chunks_is_refused(
    nfc: Connect, vm: SimulatedVm, frozen: bytes, chunk: int, start: int, count: int
) -> None:
    client = nfc(vm)
    handle = handle_of(client.open_file(BASE))
    with pytest.raises(Refused):
        client.call(13, struct.pack("<QQQQQQ", handle, 0, chunk, start, count, 0))
    assert client.read(handle, 0, 512)


def test_allocation_query_is_refused_when_the_host_does_not_answer_it(
    nfc: Connect, site: SimulatedSite, vm: SimulatedVm, frozen: bytes
) -> None:
    site.faults.set("nfc-error-reply", on="allocated")
    client = nfc(vm)
    handle = handle_of(client.open_file(BASE))
    with pytest.raises(Refused):
        client.call(13, struct.pack("<QQQQQQ", handle, 0, GRAIN, 0, 4, 0))


def test_open_file_tells_capacity_and_geometry(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    reply = nfc(vm).open_file(BASE)
    assert struct.unpack_from("<Q", reply, 28)[0] == 16 * MIB
    sector, cylinders, heads, sectors = struct.unpack_from("<IIII", reply, 36)
    assert sector == 512
    assert cylinders * heads * sectors * sector <= 16 * MIB


def test_current_link_of_a_running_vm_is_refused_and_of_a_stopped_one_not(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    client = nfc(vm)
    with pytest.raises(Refused):
        client.open_file(SECOND)
    vm.power("poweredOff")
    assert client.read(handle_of(client.open_file(SECOND)), 0, 5) == b"later"


def test_unknown_path_and_other_disk_of_a_one_disk_ticket_are_refused(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    client = nfc(vm, disk_key=2016)
    for path in ("[datastore1] db 1/nothing.vmdk", BASE):
        with pytest.raises(Refused):
            client.open_file(path)
    assert client.open_file("[datastore1] db 1/db 1_1.vmdk")


@pytest.mark.parametrize(
    ("offset", "length"), [(16 * MIB, 512), (16 * MIB - 512, 1024), (0, 0), (1 << 62, 512)]
)
def test_read_outside_the_disk_is_an_error_and_the_session_goes_on(
    nfc: Connect, vm: SimulatedVm, frozen: bytes, offset: int, length: int
) -> None:
    client = nfc(vm)
    handle = handle_of(client.open_file(DELTA))
    with pytest.raises(Refused):
        client.read(handle, offset, length)
    assert client.read(handle, 0, 4096) == frozen[:4096]


def test_buffers_above_2_mib_are_refused(nfc: Connect, vm: SimulatedVm) -> None:
    client = nfc(vm)
    for size in (16 * MIB, 2 * MIB + 1, 0):
        with pytest.raises(Refused):
            client.call(2, struct.pack("<IIII", 0, size, 4, 0))


def write_request(handle: int, total: int, within: int, data: bytes) -> bytes:
    return struct.pack("<QQQIIIII", handle, 0, 0, total, within, len(data), len(data), 0)


def test_write_needs_a_ticket_for_writing(nfc: Connect, vm: SimulatedVm, frozen: bytes) -> None:
    client = nfc(vm)
    with pytest.raises(Refused) as refused:
        client.open_file(BASE, flags=0x1A)
    assert refused.value.code == 0x0B


def test_write_in_fragments_reaches_the_disk_of_a_stopped_vm(nfc: Connect, vm: SimulatedVm) -> None:
    vm.power("poweredOff")
    client = nfc(vm, writable=True)
    handle = handle_of(client.open_file(BASE, flags=0x1A))
    operation = client.send(7, write_request(handle, 1024, 512, b"b" * 512), b"b" * 512)
    client._operations = operation
    reply = client.call(7, write_request(handle, 1024, 0, b"a" * 512), b"a" * 512)
    assert struct.unpack_from("<I", reply, 24)[0] == 1024
    assert vm.disks[0].read(0, 1024) == b"a" * 512 + b"b" * 512


def test_ticket_works_once(site: SimulatedSite, vm: SimulatedVm) -> None:
    token = site.tickets.issue(vm).token
    address = ("127.0.0.2", site.nfc_port)
    sock, lines = authenticate(address, token, "nfc", site.certificate_pem)
    assert lines[0].startswith("220 VMware Authentication Daemon Version 1.10: SSL Required")
    assert lines[2] == f"200 {site.certificate_sha256}"
    assert lines[3] == "200 Connect ha-nfc"
    sock.close()
    for used in (token, "made-up"):
        with pytest.raises(PermissionError, match="530 Please login with USER and PASS"):
            authenticate(address, used, "nfc", site.certificate_pem)


def test_unknown_service_is_refused(site: SimulatedSite, vm: SimulatedVm) -> None:
    token = site.tickets.issue(vm).token
    with pytest.raises(PermissionError, match="501 Invalid arguments"):
        authenticate(("127.0.0.2", site.nfc_port), token, "vpxa-nonsense", site.certificate_pem)


def test_command_before_tls_closes_the_connection(site: SimulatedSite) -> None:
    import socket

    with socket.create_connection(("127.0.0.2", site.nfc_port), 30) as sock:
        sock.settimeout(30)
        assert sock.recv(4).startswith(b"220")
        sock.sendall(b"USER root\r\n" * 20)
        received = bytearray()
        try:
            while part := sock.recv(4096):
                received += part
        except ConnectionResetError:
            pass
        assert b"200" not in received


def test_nonsense_after_the_greeting_closes_the_connection(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    client = nfc(vm)
    client.sock.sendall(b"\xff" * 64)
    with pytest.raises(ConnectionError):
        client.receive(1)


def test_open_handle_keeps_links_from_being_merged_until_it_is_closed(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    vm.reader_patience_s = 0
    client = nfc(vm)
    handle = handle_of(client.open_file(DELTA))
    with pytest.raises(OperationRefused) as refused:
        vm.remove_all_snapshots()
    assert refused.value.kind == "FileLocked"
    assert vm.consolidation_needed
    assert client.read(handle, 0, 16 * MIB) == frozen
    client.call(5, struct.pack("<Q", handle))
    vm.consolidate()
    assert not vm.consolidation_needed
    assert len(vm.links(vm.disks[0])) == 1


def test_lost_connection_gives_its_handles_back(
    nfc: Connect, vm: SimulatedVm, frozen: bytes
) -> None:
    client = nfc(vm)
    client.open_file(DELTA)
    client.close()
    vm.remove_all_snapshots()
    assert not vm.consolidation_needed


def test_ordered_faults_fire_at_their_read(
    nfc: Connect, site: SimulatedSite, vm: SimulatedVm, frozen: bytes
) -> None:
    site.faults.fail_read(on_read=1)
    site.faults.cut_nfc(on_read=2)
    client = nfc(vm)
    handle = handle_of(client.open_file(DELTA))
    assert client.read(handle, 0, 512) == frozen[:512]
    with pytest.raises(Refused):
        client.read(handle, 0, 512)
    with pytest.raises(AssertionError, match="nfc-cut fired 0 of 1 times"):
        site.faults.assert_all_fired()
    with pytest.raises(ConnectionError):
        client.read(handle, 0, 512)
    site.faults.assert_all_fired()


def test_disk_off_the_grain_is_read_to_its_last_byte(nfc: Connect, site: SimulatedSite) -> None:
    vm = site.add_vm("odd", [DiskSpec(3 * GRAIN + 512, content=b"z" * (3 * GRAIN + 512))])
    vm.create_snapshot("one")
    for service in ("nfc", "nfcssl"):
        client = nfc(vm, service=service)
        handle = handle_of(client.open_file("[datastore1] odd/odd.vmdk"))
        for compression in (0, 1, 3):
            assert client.read(handle, 3 * GRAIN, 512, compression) == b"z" * 512


@pytest.mark.parametrize("service", ["nfc", "nfcssl"])
def test_reader_that_says_nothing_for_too_long_is_dropped(
    nfc: Connect, site: SimulatedSite, vm: SimulatedVm, frozen: bytes, service: str
) -> None:
    site.behaviour.nfc_idle_s = 0.5
    client = nfc(vm, service=service)
    client.open_file(DELTA)
    assert client.sock.recv(1) == b""
    vm.remove_all_snapshots()


@pytest.mark.parametrize("service", ["nfc", "nfcssl"])
def test_reader_that_takes_nothing_for_too_long_is_dropped(
    nfc: Connect, site: SimulatedSite, vm: SimulatedVm, frozen: bytes, service: str
) -> None:
    site.behaviour.nfc_send_s = 0.5
    client = nfc(vm, service=service)
    handle = handle_of(client.open_file(DELTA))
    for _ in range(4):
        client.ask_read(handle, 0, 16 * MIB)
    vm.reader_patience_s = 30
    vm.remove_all_snapshots()  # waits until the host gave the reader up
    assert not vm.consolidation_needed
