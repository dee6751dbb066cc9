"""A reader at a scripted host, and what most scripts ask for."""

from pathlib import Path
from typing import Literal

from agent.transports.nfc.aio import Compression
from agent.transports.nfc.reader import NfcDiskReader
from tests.contracts.nfc import golden
from tests.contracts.nfc.scripted_host import Script, ScriptedHost

CAPACITY = 5 * 65536 + 2048


PLAIN = Compression.NONE


def reader_of(
    host: ScriptedHost,
    transport: Literal["nbd", "nbdssl"] = "nbd",
    compression: Compression | None = PLAIN,
    timeout_s: float = 10,
) -> NfcDiskReader:
    return NfcDiskReader.open(
        host.ticket(),
        golden.PATH,
        transport=transport,
        compression=compression,
        timeout_s=timeout_s,
    )


def plain_host(folder: Path, script: Script) -> ScriptedHost:
    return ScriptedHost(folder, script, encrypted=False)


ASKED = ("04000000", "0000000000000000", "00040000")  # 1024 bytes at 0, operation 4


DATA = b"d" * 512
