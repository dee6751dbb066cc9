"""The right to read disk files of one VM once: what vSphere hands out, as plain data."""

from dataclasses import dataclass, field
from typing import Literal

Transport = Literal["nbdssl", "nbd"]


@dataclass(frozen=True, slots=True)
class NfcTicket:
    """A vim.HostServiceTicket. Single-use: one connection."""

    host: str
    port: int
    thumbprint_sha1: str
    """Of the host's certificate: 40 hex digits, lower case; empty when vSphere named none."""
    service: str
    """authd's name for NFC: `vpxa-nfc` through vCenter, `nfc` or `ha-nfc` on a host."""
    session_id: str = field(repr=False)
    """A secret."""
    certificate_sha256: str = ""
    """64 hex digits, lower case, when the site's operator pinned this host's certificate."""
