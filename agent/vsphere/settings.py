"""How to reach one site's vSphere."""

from dataclasses import dataclass, field
from pathlib import Path

from agent.transports.nfc.patience import ReconnectPatience
from agent.transports.nfc.ticket import Transport
from shared.errors import ConfigurationError
from shared.snapshot_alarms import DEFAULT_AGE_ALARM_H, DEFAULT_COUNT_ALARM

HTTPS_PORT = 443

DEFAULT_NFC_CONNECTIONS = 8
DEFAULT_NFC_BUFFERS_MIB = 32


@dataclass(frozen=True)
class VsphereSettings:
    """Address and account; `certificate_sha256` or `ca_file` says whom to trust.

    With both, the pinned certificate decides. The password shows in no repr.
    """

    address: str
    """ "host" or "host:port", port 443 otherwise."""
    user: str
    password: str = field(repr=False)
    certificate_sha256: str | None
    """64 hex digits, colons allowed."""
    ca_file: Path | None
    transport: Transport
    site: str
    timeout_s: float = 60
    """Longest wait for one answer of vSphere or of a host, in seconds."""
    nfc_connections_per_host: int = DEFAULT_NFC_CONNECTIONS
    nfc_buffers_mib_per_host: int = DEFAULT_NFC_BUFFERS_MIB
    """Of each ESXi host, for all disks that are read at a time."""
    reconnect: ReconnectPatience = field(default_factory=ReconnectPatience)
    """With a disk whose connections fail."""
    snapshot_age_alarm_h: float = DEFAULT_AGE_ALARM_H
    """Oldest snapshot, not of the agent, that a job passes over in silence, in hours."""
    snapshot_count_alarm: int = DEFAULT_COUNT_ALARM
    """Most snapshots, not of the agent, that a job passes over in silence."""

    def host_and_port(self) -> tuple[str, int]:
        """Raises ConfigurationError."""
        host, port = self.address, HTTPS_PORT
        if self.address.startswith("["):
            host, _, rest = self.address[1:].partition("]")
            digits = rest.removeprefix(":")
        elif self.address.count(":") == 1:
            host, _, digits = self.address.partition(":")
        else:
            digits = ""
        if digits:
            port = int(digits) if digits.isdecimal() else 0
        if not host or "/" in host or not 0 < port < 65536:
            raise ConfigurationError(
                "vsphere.address", f'{self.address!r} is no "host" or "host:port"'
            )
        return host, port

    def pinned_fingerprint(self) -> str | None:
        """64 lower-case hex digits. Raises ConfigurationError."""
        if not self.certificate_sha256:
            return None
        digits = self.certificate_sha256.replace(":", "").strip().lower()
        if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise ConfigurationError(
                "vsphere.certificate_sha256",
                "is no SHA-256 fingerprint of 64 hex digits "
                "(openssl x509 -noout -fingerprint -sha256 prints one)",
            )
        return digits
