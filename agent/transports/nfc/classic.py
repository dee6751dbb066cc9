"""NFC's classic messages: 264 bytes each, before and after the AIO frames.

All integers are little-endian. The tables are the description; golden bytes
in tests/contracts/nfc judge them and the code.
"""

from enum import IntEnum
from struct import Struct


class Classic(IntEnum):
    """Types of the fixed messages of 264 bytes."""

    SESSION_COMPLETE = 4
    START = 33
    START_REPLY = 36
    SECURITY = 43
    VERSION = 51
    READY = 52
    CLIENT_NAME = 54
    FEATURES = 55


CLASSIC_BYTES = 264
PROTOCOL_VERSION = 11
FEATURE_INTERRUPTION = 1
FEATURE_SWITCH = 2

_U32 = Struct("<I")
_U32_PAIR = Struct("<II")


def message(kind: Classic, body: bytes = b"") -> bytes:
    """A classic message.

    ==== ===== =========================================
       0     4 type
       4   260 type-specific bytes, padded with zeros
    ==== ===== =========================================
    """
    return (_U32.pack(kind) + body).ljust(CLASSIC_BYTES, b"\0")


def security_message() -> bytes:
    """43: the name of the security scheme from byte 4."""
    return message(Classic.SECURITY, b"PlainText")


def version_message() -> bytes:
    """51: the protocol version at byte 4."""
    return message(Classic.VERSION, _U32.pack(PROTOCOL_VERSION))


def client_name_message(name: bytes, operation_id: bytes) -> bytes:
    """54: length of the name at byte 4, of the operation id at 8; both follow the message raw."""
    return message(Classic.CLIENT_NAME, _U32_PAIR.pack(len(name), len(operation_id))) + (
        name + operation_id
    )


def features_message() -> bytes:
    """55: feature bits at byte 4."""
    return message(Classic.FEATURES, _U32.pack(FEATURE_INTERRUPTION | FEATURE_SWITCH))


def u32_at(data: bytes, offset: int) -> int:
    value: int = _U32.unpack_from(data, offset)[0]
    return value
