"""The client against bytes written by hand: what it sends, what it makes of replies."""

import zlib
from pathlib import Path
from typing import Literal

import pytest

from agent.areas import Area
from agent.transports.disk_reader import Extent
from agent.transports.errors import (
    AllocationUnknown,
    NfcProtocolViolation,
    NfcReadFailed,
    ReaderClosed,
)
from tests.contracts.nfc import golden
from tests.contracts.nfc.scripted_host import Line, ScriptedHost, farewell, open_disk
from tests.contracts.nfc.scripted_reads import ASKED, CAPACITY, DATA, plain_host, reader_of


@pytest.mark.parametrize("transport", ["nbd", "nbdssl"])
def test_disk_opens_and_closes_in_good_order(
    tmp_path: Path, transport: Literal["nbd", "nbdssl"]
) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        farewell(line, 4)

    with ScriptedHost(tmp_path, script, encrypted=transport == "nbdssl") as host:
        with reader_of(host, transport) as reader:
            assert reader.capacity_bytes == CAPACITY
        reader.close()
        with pytest.raises(ReaderClosed):
            reader.allocated_areas()


def test_allocation_bitmap_becomes_areas_and_the_tail_off_the_grid_is_read(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.QUERY_ALLOCATED)
        line.send(golden.QUERY_ALLOCATED_REPLY)
        farewell(line, 5)

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        assert reader.allocated_areas() == [
            Area(0, 131072),
            Area(196608, 65536),
            Area(327680, 2048),
        ]


def test_reader_still_reads_when_the_allocation_query_is_refused(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.QUERY_ALLOCATED)
        line.send(golden.error_reply("04000000"))
        # Holes are asked to be skipped, although the transport's habit is plain.
        where = ("05000000", "0000000000000000", "00020000")
        line.expect(golden.read_request(*where, compression="03000000"))
        line.send(golden.read_fragment(*where, "00000000", "00020000", b"z" * 512))
        farewell(line, 6)

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        with pytest.raises(AllocationUnknown, match="0xb"):
            reader.allocated_areas()
        assert list(reader.read([Area(0, 512)])) == [Extent(0, b"z" * 512)]


def test_reads_are_sent_ahead_and_delivered_in_order_whatever_order_replies_have(
    tmp_path: Path,
) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        # Three requests before the first reply.
        line.expect(golden.read_request("04000000", "0000000000000000", "00040000"))
        line.expect(golden.read_request("05000000", "0000010000000000", "00020000"))
        line.expect(golden.read_request("06000000", "0000050000000000", "00080000"))
        last = ("06000000", "0000050000000000", "00080000")
        first = ("04000000", "0000000000000000", "00040000")
        line.send(golden.read_fragment(*last, "00000000", "00080000", b"T" * 2048))
        line.send(golden.read_fragment(*first, "00020000", "00020000", b"B" * 512))
        line.send(
            golden.read_fragment(
                "05000000", "0000010000000000", "00020000", "00000000", "00020000", b"C" * 512
            )
        )
        line.send(golden.read_fragment(*first, "00000000", "00020000", b"A" * 512))
        farewell(line, 7)

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        areas = [Area(0, 1024), Area(65536, 512), Area(327680, 2048)]
        assert list(reader.read(areas)) == [
            Extent(0, b"A" * 512 + b"B" * 512),
            Extent(65536, b"C" * 512),
            Extent(327680, b"T" * 2048),
        ]


def test_compressed_fragments_come_each_in_its_own_way(tmp_path: Path) -> None:
    where = ("04000000", "0000000000000000", "00080000")  # 2048 bytes at 0
    skipz = golden.hexed("00020000 00000000  10000000 03000000") + b"run"
    squeezed = zlib.compress(b"q" * 512)

    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*where, compression="03000000"))
        line.send(golden.read_fragment(*where, "00020000", "00020000", skipz, "03000000"))
        line.send(golden.read_fragment(*where, "00060000", "00020000", squeezed, "01000000"))
        hole = golden.hexed("00020000 00000000")
        line.send(golden.read_fragment(*where, "00000000", "00020000", hole, "03000000"))
        line.send(golden.read_fragment(*where, "00040000", "00020000", b"p" * 512))
        farewell(line, 5)

    with (
        ScriptedHost(tmp_path, script) as host,
        reader_of(host, "nbdssl", compression=None) as reader,
    ):
        (extent,) = reader.read([Area(0, 2048)])
    assert extent.data == bytes(512) + bytes(16) + b"run" + bytes(493) + b"p" * 512 + b"q" * 512


@pytest.mark.parametrize("reply", [b"", b"rubbish" * 10, golden.error_reply("04000000")])
def test_close_raises_nothing_whatever_the_host_answers(tmp_path: Path, reply: bytes) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.close_file("04000000"))
        line.send(reply)

    with plain_host(tmp_path, script) as host:
        reader = reader_of(host)
        reader.close()
        reader.close()


WRONG_REPLIES = {
    "another operation": golden.read_fragment(
        "05000000", ASKED[1], ASKED[2], "00000000", "00020000", DATA
    ),
    "another offset": golden.read_fragment(
        ASKED[0], "0002000000000000", ASKED[2], "00000000", "00020000", DATA
    ),
    "another length": golden.read_fragment(
        ASKED[0], ASKED[1], "00020000", "00000000", "00020000", DATA
    ),
    "beyond the request": golden.read_fragment(*ASKED, "00030000", "00020000", DATA),
    "far beyond the request": golden.read_fragment(*ASKED, "00feffff", "00020000", DATA),
    "empty fragment": golden.read_fragment(*ASKED, "00000000", "00000000", b""),
    "more than a buffer": golden.read_fragment(*ASKED, "00000000", "00022000", DATA),
    "plain with another size": golden.read_fragment(*ASKED, "00000000", "00020000", b"x" * 511),
    "unknown compression": golden.read_fragment(
        *ASKED, "00000000", "00020000", DATA, compression="02000000"
    ),
    "extra longer than its data": golden.read_fragment(
        *ASKED, "00000000", "00020000", b"x" * 1024, compression="03000000"
    ),
    "overlapping fragments": golden.read_fragment(*ASKED, "00000000", "00020000", DATA)
    + golden.read_fragment(*ASKED, "00010000", "00020000", DATA),
    "skipz without a head": golden.read_fragment(
        *ASKED, "00000000", "00020000", bytes(7), compression="03000000"
    ),
    "skipz of another length": golden.read_fragment(
        *ASKED, "00000000", "00020000", golden.hexed("00040000 00000000"), compression="03000000"
    ),
    "skipz run beyond its fragment": golden.read_fragment(
        *ASKED,
        "00000000",
        "00020000",
        golden.hexed("00020000 00000000 ff010000 02000000") + b"xy",
        compression="03000000",
    ),
    "skipz run cut short": golden.read_fragment(
        *ASKED,
        "00000000",
        "00020000",
        golden.hexed("00020000 00000000 00000000 09000000") + b"xy",
        compression="03000000",
    ),
    "skipz runs backwards": golden.read_fragment(
        *ASKED,
        "00000000",
        "00020000",
        golden.hexed("00020000 00000000 10000000 01000000 78 10000000 01000000 79"),
        compression="03000000",
    ),
    "zlib rubbish": golden.read_fragment(
        *ASKED, "00000000", "00020000", b"rubbish", compression="01000000"
    ),
    "zlib too long": golden.read_fragment(
        *ASKED, "00000000", "00020000", zlib.compress(bytes(1 << 20))[:500], compression="01000000"
    ),
    "zlib too short": golden.read_fragment(
        *ASKED, "00000000", "00020000", zlib.compress(bytes(511)), compression="01000000"
    ),
    "not NFC": b"HTTP/1.1 400 Bad Request\r\n",
    "another type": golden.QUERY_ALLOCATED_REPLY,
}


@pytest.mark.parametrize("reply", WRONG_REPLIES.values(), ids=WRONG_REPLIES.keys())
def test_reply_that_does_not_fit_its_request_ends_the_reader(tmp_path: Path, reply: bytes) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        line.send(reply)

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        with pytest.raises(NfcProtocolViolation):
            list(reader.read([Area(0, 1024)]))
        with pytest.raises(ReaderClosed):
            list(reader.read([Area(0, 512)]))


def test_read_error_names_the_place_on_the_disk(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request("04000000", "0000010000000000", "00020000"))
        line.send(golden.error_reply("04000000", "05000000"))

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        with pytest.raises(NfcReadFailed) as caught:
            list(reader.read([Area(65536, 512)]))
        assert (caught.value.offset_bytes, caught.value.length_bytes) == (65536, 512)
        assert "0x5" in str(caught.value)


@pytest.mark.parametrize(
    "area",
    [Area(0, 0), Area(0, (2 << 20) + 512), Area(1, 512), Area(0, 511), Area(CAPACITY, 512)],
    ids=str,
)
def test_area_that_cannot_be_asked_for_is_refused_before_anything_is_sent(
    tmp_path: Path, area: Area
) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect_end()

    with (
        plain_host(tmp_path, script) as host,
        reader_of(host) as reader,
        pytest.raises(ValueError, match="Area"),
    ):
        list(reader.read([area]))
