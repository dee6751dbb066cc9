"""NFC that breaks: tickets, cuts, stalls, errors, wrong numbers, too many connections."""

import socket
import struct
import threading

import pytest

from simulator.disks.link import GRAIN
from tests.unit.simulator.conftest import MIB
from tests.unit.simulator.faults.conftest import Client
from tests.unit.simulator.nfc_client import NfcClient, Refused, authenticate

pytestmark = pytest.mark.hostile
DEADLINE_S = 30


def login(client: Client, token: str) -> socket.socket:
    address = ("127.0.0.2", client.site.nfc_port)
    connection: socket.socket = authenticate(address, token, "nfc", client.site.certificate_pem)[0]
    return connection


def test_expired_ticket_is_worthless(client: Client) -> None:
    fault = client.site.faults.set("nfc-ticket-expired", vm="db 1", times=1)
    token = client.site.tickets.issue(client.vm).token
    for _ in range(2):
        with pytest.raises(PermissionError, match="530 Please login with USER and PASS"):
            login(client, token)
    assert fault.fired == 1
    login(client, client.site.tickets.issue(client.vm).token).close()


def test_refused_ticket_is_not_used_up(client: Client) -> None:
    client.site.faults.set("nfc-ticket-refused", vm="db 1", times=1)
    token = client.site.tickets.issue(client.vm).token
    with pytest.raises(PermissionError, match="530 Login incorrect"):
        login(client, token)
    login(client, token).close()
    client.site.faults.assert_all_fired()


@pytest.mark.parametrize("service", ["nfc", "nfcssl"])
@pytest.mark.parametrize("back", [0, 1, 43, 44, 60, 1000, 2 * GRAIN])
def test_connection_is_cut_at_any_byte_of_a_reply(client: Client, service: str, back: int) -> None:
    """`back` bytes before the end of a read's reply; three fragments of 60 + 64 KiB."""
    connection, handle = client.opened(service=service)
    said = sent_until_opened(client, service)
    reply = 3 * (60 + GRAIN)
    fault = client.site.faults.set("nfc-cut", vm="db 1", at_byte=said + reply - back)
    connection.ask_read(handle, 0, 3 * GRAIN)
    if back == 0:  # the first byte of the next reply
        assert len(connection.receive(reply)) == reply
        connection.ask_read(handle, 0, GRAIN)
        assert received_until_cut(connection) == b""
    else:
        assert len(received_until_cut(connection)) == reply - back
    assert fault.fired == 1
    assert fault.firings[-1].detail == {"at_byte": said + reply - back}


def sent_until_opened(client: Client, service: str) -> int:
    """Bytes that the host says on a connection until a disk is open."""
    classics = 3 * 264
    replies = (16 + 16) + (16 + 12) + (16 + 4) + (16 + 60)
    token = client.site.tickets.issue(client.vm).token
    address = ("127.0.0.2", client.site.nfc_port)
    sock, lines = authenticate(address, token, service, client.site.certificate_pem)
    sock.close()
    return sum(len(line) + 2 for line in lines) + classics + replies


def received_until_cut(connection: NfcClient) -> bytes:
    data = bytearray()
    try:
        while part := connection.sock.recv(1 << 16):
            data += part
    except OSError:
        pass  # TLS tells the cut as an error
    return bytes(data)


@pytest.mark.parametrize("at_byte", [0, 5, 150])
def test_connection_of_any_vm_is_cut_in_the_login(client: Client, at_byte: int) -> None:
    fault = client.site.faults.set("nfc-cut", at_byte=at_byte, times=1)
    with pytest.raises((OSError, ConnectionError)):
        login(client, client.site.tickets.issue(client.vm).token)
    assert fault.fired == 1
    login(client, client.site.tickets.issue(client.vm).token).close()


def test_every_connection_is_cut_until_the_fault_is_cleared(client: Client) -> None:
    fault = client.site.faults.set("nfc-cut", vm="db 1", disk=0, at_byte=10_000)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            client.read()
    assert fault.fired == 3
    client.site.faults.clear(fault)
    assert client.read()


def test_read_request_of_one_disk_is_cut_and_of_another_not(client: Client) -> None:
    fault = client.site.faults.set("nfc-cut", vm="db 1", disk=1)
    assert client.read()
    connection, handle = client.opened("[datastore1] db 1/db 1_1.vmdk")
    with pytest.raises(ConnectionError):
        connection.read(handle, 0, 512)
    assert fault.firings[-1].detail == {"offset": 0, "length": 512}


def test_stalled_connection_says_nothing_while_others_go_on(client: Client) -> None:
    fault = client.site.faults.set("nfc-stall", vm="db 1", times=1)
    connection, handle = client.opened()
    operation = connection.ask_read(handle, 0, GRAIN)
    assert fault.wait_fired(DEADLINE_S)
    assert client.read()
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.sock.recv(1)
    connection.sock.settimeout(DEADLINE_S)
    client.site.faults.clear(fault)
    assert connection.fragments([operation])[operation]


def test_stall_in_the_middle_of_a_fragment_goes_on_there(client: Client) -> None:
    connection, handle = client.opened()
    said = sent_until_opened(client, "nfc")
    fault = client.site.faults.set("nfc-stall", vm="db 1", times=1, at_byte=said + 100)
    operation = connection.ask_read(handle, 0, GRAIN)
    assert fault.wait_fired(DEADLINE_S)
    assert len(connection.receive(100)) == 100
    client.site.faults.clear(fault)
    assert len(connection.receive(60 + GRAIN - 100)) == 60 + GRAIN - 100
    assert operation == connection._operations - 1


def test_stall_ends_when_the_reader_leaves(client: Client) -> None:
    client.vm.reader_patience_s = DEADLINE_S
    fault = client.site.faults.set("nfc-stall")
    connection, handle = client.opened()
    connection.ask_read(handle, 0, GRAIN)
    assert fault.wait_fired(DEADLINE_S)
    connection.close()
    client.vm.remove_all_snapshots()  # waits for the handle
    assert not client.vm.consolidation_needed


@pytest.mark.parametrize("on", ["read", "open", "allocated"])
def test_error_reply_answers_the_request_that_was_named(client: Client, on: str) -> None:
    fault = client.site.faults.set("nfc-error-reply", vm="db 1", on=on, code=0x23, times=1)
    with pytest.raises(Refused) as refused:
        if on == "allocated":
            client.allocated()
        else:
            client.read()
    assert refused.value.code == 0x23
    assert fault.fired == 1
    assert client.read()
    assert client.allocated()


def test_bad_place_of_a_disk_fails_every_read_over_it(client: Client) -> None:
    fault = client.site.faults.set("nfc-error-reply", vm="db 1", disk=0, offset=5 * GRAIN)
    connection, handle = client.opened()
    assert connection.read(handle, 0, 5 * GRAIN)
    for _ in range(2):
        with pytest.raises(Refused):
            connection.read(handle, 5 * GRAIN, GRAIN)
    assert connection.read(handle, 6 * GRAIN, GRAIN)
    assert fault.fired == 2


@pytest.mark.parametrize(
    ("field", "at"),
    [("length", 48), ("extra_bytes", 52), ("within", 44), ("total", 40), ("offset", 32)],
)
@pytest.mark.parametrize("by", [512, -1])
def test_number_in_a_fragment_is_off_once(client: Client, field: str, at: int, by: int) -> None:
    connection, handle = client.opened()
    connection.ask_read(handle, GRAIN, GRAIN)
    right = connection.receive(60 + GRAIN)
    client.site.faults.set("nfc-bad-fragment", field=field, by=by, times=1)
    connection.ask_read(handle, GRAIN, GRAIN)
    wrong = connection.receive(60 + GRAIN)
    layout = "<Q" if field == "offset" else "<I"
    limit = 1 << 64 if field == "offset" else 1 << 32
    was, told = (struct.unpack_from(layout, one, at)[0] for one in (right, wrong))
    assert told == (was + by) % limit
    assert wrong[60:] == right[60:]
    assert connection.read(handle, GRAIN, GRAIN) == right[60:]
    client.site.faults.assert_all_fired()


@pytest.mark.parametrize(("field", "at"), [("frame_bytes", 8), ("operation", 12)])
def test_number_in_a_frame_is_off_once(client: Client, field: str, at: int) -> None:
    client.site.faults.set("nfc-bad-fragment", field=field, by=3, times=1)
    connection, handle = client.opened()
    operation = connection.ask_read(handle, 0, GRAIN)
    head = connection.receive(60)
    assert (
        struct.unpack_from("<I", head, at)[0]
        == {"frame_bytes": 44, "operation": operation}[field] + 3
    )
    client.site.faults.assert_all_fired()


def test_connections_over_the_limit_are_dropped(client: Client) -> None:
    fault = client.site.faults.set("nfc-connection-limit", limit=2)
    first, handle = client.opened()
    client.opened()
    assert client.site.nfc_sessions == 2
    with pytest.raises(ConnectionError):
        client.opened()
    assert fault.fired == 1
    assert first.read(handle, 0, MIB)
    client.site.faults.clear("nfc-connection-limit")
    client.opened()
    assert client.site.most_nfc_sessions == 3


def test_reader_that_leaves_makes_room_under_the_limit(client: Client) -> None:
    client.site.faults.set("nfc-connection-limit", limit=1)
    first, handle = client.opened()
    first.call(5, struct.pack("<Q", handle))
    first.call(3, struct.pack("<I", 0))
    first.sock.sendall(struct.pack("<I", 4) + bytes(260))
    assert first.sock.recv(1) == b""  # the session has ended
    client.opened()


def test_cuts_and_stalls_of_many_connections_do_not_mix(client: Client) -> None:
    fault = client.site.faults.set("nfc-cut", vm="db 1", at_byte=50_000, times=3)
    ends: list[str] = []

    def reader() -> None:
        try:
            ends.append("read" if client.read() else "nothing")
        except (ConnectionError, OSError):
            ends.append("cut")

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(ends) == ["cut"] * 3 + ["read"] * 5
    assert fault.fired == 3
