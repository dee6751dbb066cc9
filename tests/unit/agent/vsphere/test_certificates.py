"""Pinning on an address that no library treats specially: 127.0.0.2."""

import hashlib
import socket
import ssl
from pathlib import Path

import pytest

from agent.vsphere.certificates import trusting_context
from agent.vsphere.errors import (
    CertificateMismatch,
    CertificateNotPinned,
    LoginFailed,
    VsphereUnreachable,
)
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from shared.errors import ConfigurationError
from tests.contracts.nfc.scripted_host import make_certificate
from tests.unit.agent.vsphere.tls_server import showing


def settings(
    address: str, pinned: bytes | None = None, ca_file: Path | None = None
) -> VsphereSettings:
    return VsphereSettings(
        address=address,
        user="root",
        password="hunter2",
        certificate_sha256=hashlib.sha256(pinned).hexdigest() if pinned else None,
        ca_file=ca_file,
        transport="nbdssl",
        site="paris",
        timeout_s=10,
    )


def shake_hands(context: ssl.SSLContext, site: VsphereSettings) -> None:
    host, port = site.host_and_port()
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        pass


@pytest.mark.parametrize("expired", [False, True])
def test_pinned_certificate_is_trusted_whatever_its_name_and_dates(
    tmp_path: Path, expired: bool
) -> None:
    der, pem = make_certificate(tmp_path, expired=expired)
    with showing([pem, pem]) as address:
        site = settings(address, pinned=der)
        shake_hands(trusting_context(site), site)


def test_another_certificate_than_the_pinned_is_refused_with_both_fingerprints(
    tmp_path: Path,
) -> None:
    der, pem = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path)
    with showing([pem]) as address, pytest.raises(CertificateMismatch) as caught:
        trusting_context(settings(address, pinned=other))
    assert caught.value.code == "VSPHERE_CERTIFICATE_MISMATCH"
    assert caught.value.seen.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
    assert caught.value.expected.replace(":", "").lower() == hashlib.sha256(other).hexdigest()


def test_certificate_that_changes_after_the_check_is_refused(tmp_path: Path) -> None:
    der, pem = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path)
    with showing([pem, other]) as address:
        site = settings(address, pinned=der)
        context = trusting_context(site)
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(context, site)


def test_connect_tells_a_certificate_that_changes_after_the_check(tmp_path: Path) -> None:
    der, pem = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path)
    with showing([pem, other, other]) as address, pytest.raises(CertificateMismatch):
        VsphereSite.connect(settings(address, pinned=der))


def test_nothing_is_trusted_unless_told_and_the_error_tells_how(tmp_path: Path) -> None:
    der, pem = make_certificate(tmp_path)
    with showing([pem]) as address, pytest.raises(CertificateNotPinned) as caught:
        VsphereSite.connect(settings(address))
    text = str(caught.value)
    assert hashlib.sha256(der).hexdigest() in text.replace(":", "").lower()
    assert "certificate_sha256" in text
    assert "ca_file" in text


def test_certificate_that_the_authority_did_not_sign_is_refused(tmp_path: Path) -> None:
    _, authority = make_certificate(tmp_path)
    _, pem = make_certificate(tmp_path)
    with showing([pem, pem]) as address, pytest.raises(CertificateMismatch, match=str(authority)):
        VsphereSite.connect(settings(address, ca_file=authority))


def test_authority_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match="ca_file"):
            trusting_context(settings("127.0.0.2", ca_file=path))


def test_server_that_is_not_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        address = f"127.0.0.2:{listener.getsockname()[1]}"
    with pytest.raises(VsphereUnreachable, match=address):
        VsphereSite.connect(settings(address, pinned=b"any"))


def test_no_error_text_holds_the_password() -> None:
    error = LoginFailed("esx", "root", "incorrect user name or password")
    assert "hunter2" not in str(error) + repr(error)
    assert "root" in str(error)
