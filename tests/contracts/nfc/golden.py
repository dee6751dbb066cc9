"""NFC messages written out by hand from the protocol notes: little-endian, field by field.

No struct packs them here: whoever reads this file can check it against the
notes with a finger on each field.
"""


def hexed(text: str) -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


def classic(start: str) -> bytes:
    """A classic message from its first bytes; the rest of the 264 is zeros."""
    return hexed(start).ljust(264, b"\0")


SECURITY = classic("2b000000 506c61696e54657874")  # 43, "PlainText"
START = classic("21000000")  # 33
START_REPLY = classic("24000000 000000000000000000000000 01000000")  # 36, 1 at 16
VERSION = classic("33000000 0b000000")  # 51, version 11
CLIENT_NAME = classic("36000000 08000000 06000000") + b"sendense" + b"backup"  # 54, 8, 6
FEATURES = classic("37000000 03000000")  # 55, interruption | switch
READY = classic("34000000")  # 52
COMPLETE = classic("04000000")  # 4


def open_session(buffers: str) -> bytes:
    return hexed(
        f"""
        7ada00a1 02000000 10000000 00000000     # magic, type 2, 16 bytes, op 0
        00000000 00002000 {buffers} 00000000    # 0, 2 MiB, number of buffers, 0
        """
    )


OPEN_SESSION = open_session("04000000")
OPEN_SESSION_REPLY = hexed(
    """
    7ada00a1 02000000 10000000 00000000
    00000000 00002000 04000000 00000000
    """
)
SET_SOCK_OPTS = hexed(
    """
    7ada00a1 09000000 0c000000 01000000     # type 9, 12 bytes, op 1
    00000000 00000000 00000000
    """
)
SET_SOCK_OPTS_REPLY = hexed(
    """
    7ada00a1 09000000 0c000000 01000000
    00000400 00000400 01000000
    """
)
SET_RES_POOL = hexed("7ada00a1 16000000 04000000 02000000  01000000")  # type 22, op 2
SET_RES_POOL_REPLY = hexed("7ada00a1 16000000 04000000 02000000  00000000")
OPEN_FILE = (
    hexed(
        """
        7ada00a1 04000000 3c000000 03000000     # type 4, 60 bytes, op 3
        13000000                                # path of 19 bytes
        00000000 00000000 00000000
        02000000                                # a disk
        1e000000                                # read-only
        000000000000000000000000000000000000
        000000000000000000000000000000000000    # 36 zeros
        """
    )
    + b"[ds] pg/pg-0001.vmd"
)
PATH = "[ds] pg/pg-0001.vmd"
OPEN_FILE_REPLY = hexed(
    """
    7ada00a1 04000000 3c000000 03000000
    0000000000000000
    8877665544332211                        # handle 0x1122334455667788 at 8
    02000000 1e000000                       # type, flags
    00000000
    0008050000000000                        # capacity 329728 = 5 x 65536 + 2048 at 28
    00020000                                # sectors of 512 bytes
    40000000 10000000 3f000000              # cylinders, heads, sectors
    00000000 00000000
    """
)
QUERY_ALLOCATED = hexed(
    """
    7ada00a1 0d000000 30000000 04000000     # type 13, 48 bytes, op 4
    8877665544332211 0000000000000000       # handle, 0
    0000010000000000 0000000000000000       # chunks of 64 KiB from 0
    0500000000000000 0000000000000000       # 5 chunks, 0
    """
)
QUERY_ALLOCATED_REPLY = hexed(
    """
    7ada00a1 0d000000 30000000 04000000
    0000000000000000 0000000000000000 0000000000000000 0000000000000000
    0500000000000000 0000000000000000       # 5 chunks at 32
    0b000000                                # 0b01011: chunks 0, 1 and 3; padded to 4 bytes
    """
)


def read_request(op_id: str, offset: str, length: str, compression: str = "00000000") -> bytes:
    """IO, type 7, 44 bytes; numbers as little-endian hex of 8 (op id, length) or 16 digits."""
    return hexed(
        f"""
        7ada00a1 07000000 2c000000 {op_id}
        8877665544332211                    # handle
        01000000 {compression}              # read; compression wished for
        {offset}
        {length} 00000000                   # length as u64
        {length} {length} 00000000
        """
    )


def read_fragment(
    op_id: str,
    offset: str,
    length: str,
    at: str,
    size: str,
    extra: bytes,
    compression: str = "00000000",
) -> bytes:
    """One fragment of a reply; `extra` may lie about nothing: its length is written as it is."""
    return (
        hexed(
            f"""
            7ada00a1 07000000 2c000000 {op_id}
            0000000000000000
            01000000 {compression}          # read; how this fragment is compressed
            {offset} {length}
            {at} {size}
            """
        )
        + bytes([len(extra) % 256, len(extra) // 256 % 256, len(extra) // 65536, 0])
        + bytes(4)
        + extra
    )


def error_reply(op_id: str, code: str = "0b000000") -> bytes:
    return hexed(f"7ada00a1 01000000 10000000 {op_id}  {code} 00000000 00000000 00000000")


def close_file(op_id: str) -> bytes:
    return hexed(f"7ada00a1 05000000 08000000 {op_id}  8877665544332211")


def close_file_reply(op_id: str) -> bytes:
    return hexed(f"7ada00a1 05000000 04000000 {op_id}  00000000")


def close_session(op_id: str) -> bytes:
    return hexed(f"7ada00a1 03000000 04000000 {op_id}  00000000")
