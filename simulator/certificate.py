"""The host's own self-signed certificate: kept in the state folder until it is changed."""

import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=1825)


def thumbprint(der: bytes, algorithm: str) -> str:
    """A certificate's digest as VMware writes it: upper-case octets, colon-separated."""
    return hashlib.new(algorithm, der).digest().hex(":").upper()


@dataclass(frozen=True)
class HostCertificate:
    """Files and digests of the certificate that SOAP and NFC share."""

    certificate_file: Path
    key_file: Path

    @property
    def pem(self) -> str:
        return self.certificate_file.read_text(encoding="ascii")

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pem)

    @property
    def sha1(self) -> str:
        return thumbprint(self.der, "sha1")

    @property
    def sha256(self) -> str:
        return thumbprint(self.der, "sha256")

    def renew(self, listen: str) -> None:
        """Replace it by a new one for `listen`. Contexts made before go on showing the old one."""
        _make(self, listen)

    def server_context(self) -> ssl.SSLContext:
        """A TLS context that presents this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def host_certificate(folder: Path, listen: str) -> HostCertificate:
    """The folder's certificate; a new one when there is none or it does not name `listen`."""
    files = HostCertificate(folder / "rui.crt", folder / "rui.key")
    if files.certificate_file.exists() and files.key_file.exists():
        certificate = x509.load_pem_x509_certificate(files.pem.encode("ascii"))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if _address(listen) in names and certificate.not_valid_after_utc > datetime.now(UTC):
            return files
    folder.mkdir(parents=True, exist_ok=True)
    files.renew(listen)
    return files


def _address(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _make(files: HostCertificate, listen: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated ESXi"),
            x509.NameAttribute(NameOID.COMMON_NAME, listen),
        ]
    )
    now = datetime.now(UTC)
    names = dict.fromkeys([_address(listen), _address("127.0.0.2"), _address("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(
        files.key_file,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    _write(files.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    unfinished.replace(path)  # whole or not at all: calls that are served now read it
