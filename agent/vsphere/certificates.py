"""Which TLS certificate of vSphere is trusted: the pinned one, or a given authority's.

There is no third way: without either nothing is sent. pyVmomi's own
thumbprint check is not used, it accepts a wrong certificate where
verification is off.
"""

import hashlib
import socket
import ssl

from agent.vsphere.errors import CertificateMismatch, CertificateNotPinned, VsphereUnreachable
from agent.vsphere.settings import VsphereSettings
from shared.errors import ConfigurationError

_X509_V_FLAG_NO_CHECK_TIME = 0x200000
"""OpenSSL's; `ssl` has no name for it."""


def trusting_context(settings: VsphereSettings) -> ssl.SSLContext:
    """A context for every connection to the site.

    Raises ConfigurationError, VsphereUnreachable, CertificateMismatch,
    CertificateNotPinned. No secret was sent by then.
    """
    pinned = settings.pinned_fingerprint()
    if pinned is not None:
        return _pinned_context(settings, pinned)
    if settings.ca_file is None:
        raise CertificateNotPinned(settings.address, with_colons(_shown_fingerprint(settings)))
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "vsphere.ca_file", f"{settings.ca_file} holds no certificates: {error}"
        ) from error


def _pinned_context(settings: VsphereSettings, pinned: str) -> ssl.SSLContext:
    """Trusts the pinned certificate and nothing else, whatever name it was made for."""
    der = shown_certificate(settings)
    seen = hashlib.sha256(der).hexdigest()
    if seen != pinned:
        raise CertificateMismatch(settings.address, with_colons(pinned), with_colons(seen))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # PARTIAL_CHAIN: the certificate is trusted itself, although another one
    # signed it. NO_CHECK_TIME: its dates add nothing to its fingerprint.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(
        _X509_V_FLAG_NO_CHECK_TIME
    )
    context.load_verify_locations(cadata=der)
    return context


def mismatch(settings: VsphereSettings, error: ssl.SSLCertVerificationError) -> CertificateMismatch:
    """Phrase a failed verification, with the fingerprint that the server shows now."""
    try:
        seen = with_colons(_shown_fingerprint(settings))
    except VsphereUnreachable:
        seen = "one that it does not show again"
    pinned = settings.pinned_fingerprint()
    expected = with_colons(pinned) if pinned else f"one that {settings.ca_file} vouches for"
    return CertificateMismatch(settings.address, expected, f"{seen} ({error.verify_message})")


def shown_certificate(settings: VsphereSettings) -> bytes:
    """The DER certificate that the server shows; nothing else is exchanged.

    Raises VsphereUnreachable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = settings.host_and_port()
    try:
        with (
            socket.create_connection((host, port), timeout=settings.timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
    except (OSError, UnicodeError) as error:
        raise VsphereUnreachable(settings.address, str(error)) from error
    if not der:
        raise VsphereUnreachable(settings.address, "the server shows no certificate")
    return der


def _shown_fingerprint(settings: VsphereSettings) -> str:
    return hashlib.sha256(shown_certificate(settings)).hexdigest()


def with_colons(fingerprint: str) -> str:
    """As openssl and vSphere print it: AA:BB:..."""
    return ":".join(fingerprint[i : i + 2] for i in range(0, len(fingerprint), 2)).upper()
