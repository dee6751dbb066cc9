"""Each structure of the client against the golden messages that judge the simulated host too."""

import pytest

from agent.areas import Area
from agent.transports.errors import NfcProtocolViolation
from agent.transports.nfc import aio, classic
from agent.transports.nfc.aio import Aio, AioHeader, Compression, ReadFragment, ReadRequest
from agent.transports.nfc.allocation import _runs
from agent.transports.nfc.reads import PendingRead
from tests.data.nfc import golden

CLASSIC = {
    "classic-43-authentication": classic.security_message(),
    "classic-33-hello": classic.message(classic.Classic.START),
    "classic-51-version": classic.version_message(),
    "classic-54-client-name": classic.client_name_message(b"vddk", b"nbdmode"),
    "classic-55-features": classic.features_message(),
    "classic-52-ready": classic.message(classic.Classic.READY),
    "classic-4-session-complete": classic.message(classic.Classic.SESSION_COMPLETE),
}
PATH = b"[datastore1] golden/golden.vmdk"
AIO = {
    "aio-2-open-session": (Aio.OPEN_SESSION, 0, aio.OpenSession(65536, 4).pack()),
    "aio-9-set-sock-opts": (Aio.SET_SOCK_OPTS, 1, aio.SOCK_OPTS_PAYLOAD),
    "aio-22-set-res-pool": (Aio.SET_RES_POOL, 2, aio.RES_POOL_PAYLOAD),
    "aio-13-query-allocated": (
        Aio.QUERY_ALLOCATED,
        6,
        aio.QueryAllocated(1, 65536, 0, 10).pack(),
    ),
    "aio-5-close-file": (Aio.CLOSE_FILE, 13, aio.CLOSE_FILE.pack(1)),
    "aio-3-close-session": (Aio.CLOSE_SESSION, 14, aio.CLOSE_SESSION_PAYLOAD),
}
READS = {
    "aio-7-read": (7, ReadRequest(1, 0, 1024, Compression.NONE), b"A" * 512 + b"B" * 512),
    "aio-7-read-fragments": (
        8,
        ReadRequest(1, 65536, 131072, Compression.NONE),
        b"C" * 65536 + bytes(65536),
    ),
    "aio-7-read-skipz": (
        9,
        ReadRequest(1, 3 * 65536, 8192, Compression.SKIPZ),
        b"D" * 4096 + bytes(4096),
    ),
    "aio-7-read-skipz-zeros": (
        10,
        ReadRequest(1, 2 * 65536, 65536, Compression.SKIPZ),
        bytes(65536),
    ),
}


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_message_is_the_golden_one(name: str) -> None:
    assert CLASSIC[name] == golden(name)["client"]


@pytest.mark.parametrize("name", AIO)
def test_aio_request_is_the_golden_one(name: str) -> None:
    kind, op_id, payload = AIO[name]
    assert AioHeader(kind, len(payload), op_id).pack() + payload == golden(name)["client"]


def test_open_file_is_the_golden_one_and_its_reply_is_understood() -> None:
    messages = golden("aio-4-open-file")
    payload = aio.OpenFile(len(PATH)).pack()
    header = AioHeader(Aio.OPEN_FILE, len(payload), 3).pack()
    assert header + payload + PATH == messages["client"]
    reply = messages["server"]
    assert AioHeader.unpack(reply[:16]) == AioHeader(Aio.OPEN_FILE, 60, 3)
    opened = aio.OpenedFile.unpack(reply[16:])
    assert (opened.handle, opened.capacity_bytes, opened.sector_bytes) == (1, 1 << 30, 512)


def test_allocation_reply_is_understood() -> None:
    reply = golden("aio-13-query-allocated")["server"]
    query = aio.QueryAllocated(1, 65536, 0, 10)
    query.check_reply(reply[16:64])
    assert len(reply) == 64 + query.bitmap_bytes
    runs = [Area(start, length) for start, length in _runs(reply[64:], 10)]
    assert runs == [Area(0, 2), Area(3, 1), Area(9, 1)]
    with pytest.raises(NfcProtocolViolation):
        aio.QueryAllocated(1, 65536, 0, 11).check_reply(reply[16:64])


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "out of order"])
def test_read_is_the_golden_one_and_its_fragments_are_understood(
    name: str, backwards: bool
) -> None:
    op_id, request, data = READS[name]
    messages = golden(name)
    payload = request.pack()
    assert AioHeader(Aio.IO, len(payload), op_id).pack() + payload == messages["client"]
    fragments: list[tuple[ReadFragment, bytes]] = []
    reply = messages["server"]
    while reply:
        assert AioHeader.unpack(reply[:16]) == AioHeader(Aio.IO, 44, op_id)
        fragment = ReadFragment.unpack(reply[16:60], request, 65536)
        fragments.append((fragment, reply[60 : 60 + fragment.extra_bytes]))
        reply = reply[60 + fragment.extra_bytes :]
    pending = PendingRead(request)
    for fragment, extra in reversed(fragments) if backwards else fragments:
        assert not pending.complete
        pending.add(fragment, extra)
    assert pending.complete
    assert pending.extent().data == data


def test_error_frame_is_told_by_its_type() -> None:
    reply = golden("aio-7-write-refused")["server"]
    assert AioHeader.unpack(reply[:16]) == AioHeader(Aio.ERROR, 4, 12)
    assert classic.u32_at(reply, 16) == 0x0B
