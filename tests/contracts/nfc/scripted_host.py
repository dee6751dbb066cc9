"""An NFC host that follows a script of bytes: what must come, what is answered."""

import datetime
import hashlib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.transports.nfc.ticket import NfcTicket
from tests.contracts.nfc import golden

ADDRESS = "127.0.0.2"
TIMEOUT_S = 10.0
GREETING = b"220 VMware Authentication Daemon Version 1.10: SSL Required, NFCSSL supported/t\r\n"


class Line:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def expect(self, wanted: bytes) -> None:
        got = self.take(len(wanted))
        assert got == wanted, f"expected {wanted.hex()}, got {got.hex()}"

    def take(self, length: int) -> bytes:
        got = b""
        while len(got) < length:
            piece = self.sock.recv(length - len(got))
            if not piece:
                raise AssertionError(f"the client left after {got.hex() or 'nothing'}")
            got += piece
        return got

    def expect_silence(self, seconds: float) -> None:
        self.sock.settimeout(seconds)
        try:
            got = self.sock.recv(1)
        except TimeoutError:
            return
        finally:
            self.sock.settimeout(TIMEOUT_S)
        raise AssertionError(f"expected nothing, got {got.hex() or 'the end'}")

    def expect_end(self) -> None:
        try:
            rest = self.sock.recv(1)
        except ConnectionResetError:
            return  # broken off: the client took no leave
        assert rest == b""


Script = Callable[[Line], None]


class ScriptedHost:
    """Serves one connection; leaving the context reports what went wrong in the script."""

    def __init__(
        self,
        folder: Path,
        script: Script,
        *,
        encrypted: bool = True,
        authd: Script | None = None,
        greeting: bytes = GREETING,
    ) -> None:
        self._script = script
        self._encrypted = encrypted
        self._greeting = greeting
        self._authd = authd or log_in_as("one-time", "ha-nfcssl" if encrypted else "ha-nfc")
        self.certificate, self._pem = make_certificate(folder)
        self._listener = socket.create_server((ADDRESS, 0))
        self._listener.settimeout(TIMEOUT_S)
        self._thread = ThreadPoolExecutor(1)

    def ticket(self, **changes: str) -> NfcTicket:
        facts = {
            "thumbprint_sha1": hashlib.sha1(self.certificate).hexdigest(),
            "service": "ha-nfc",
            "session_id": "one-time",
        }
        facts |= changes
        return NfcTicket(host=ADDRESS, port=self._listener.getsockname()[1], **facts)

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        with plain:
            plain.settimeout(TIMEOUT_S)
            plain.sendall(self._greeting)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._pem)
            first = context.wrap_socket(plain, server_side=True)
            self._authd(Line(first))
            # Without a shutdown of TLS, as authd hands the connection on.
            handed_on = socket.socket(fileno=first.detach())
            handed_on.settimeout(TIMEOUT_S)
            if self._encrypted:
                handed_on = context.wrap_socket(handed_on, server_side=True)
            with handed_on:
                self._script(Line(handed_on))

    def __enter__(self) -> Self:
        self._served = self._thread.submit(self._serve)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)  # every step of the script has a time-out
        self._listener.close()
        if error is None:
            self._served.result()


def log_in_as(session_id: str, service: str) -> Script:
    def talk(line: Line) -> None:
        line.expect(f"SESSION {session_id}\r\n".encode())
        line.expect(b"BANNER \r\n")
        line.send(b"220 VMware Authentication Daemon Version 1.10\r\n")
        line.expect(b"THUMBPRINT_SHA2 PlainText\r\n")
        line.send(b"200 " + b":".join([b"AB"] * 32) + b"\r\n")
        line.expect(f"PROXY {service}\r\n".encode())
        line.send(f"200 Connect {service}\r\n".encode())

    return talk


def open_disk(line: Line, buffers: str = "04000000") -> None:
    """The script up to the open disk; the next operation id is 4."""
    line.expect(golden.SECURITY + golden.START)
    line.send(golden.START_REPLY)
    line.expect(golden.VERSION)
    line.send(golden.VERSION)
    line.expect(golden.CLIENT_NAME + golden.FEATURES + golden.READY)
    line.send(golden.READY)
    line.expect(golden.open_session(buffers))
    line.send(golden.open_session(buffers))  # answered as asked
    line.expect(golden.SET_SOCK_OPTS)
    line.send(golden.SET_SOCK_OPTS_REPLY)
    line.expect(golden.SET_RES_POOL)
    line.send(golden.SET_RES_POOL_REPLY)
    line.expect(golden.OPEN_FILE)
    line.send(golden.OPEN_FILE_REPLY)


def farewell(line: Line, op_id: int) -> None:
    first, second = op_id.to_bytes(4, "little").hex(), (op_id + 1).to_bytes(4, "little").hex()
    line.expect(golden.close_file(first))
    line.send(golden.close_file_reply(first))
    line.expect(golden.close_session(second))
    line.send(golden.close_session(second))
    line.expect(golden.COMPLETE)
    line.expect_end()


def make_certificate(folder: Path, *, expired: bool = False) -> tuple[bytes, Path]:
    """A self-signed certificate (DER) and a PEM file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost.localdomain")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(2021 if expired else 2100, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    path = folder / f"{hashlib.sha1(der).hexdigest()}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return der, path
