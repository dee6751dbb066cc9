"""One TCP connection to a host's NFC port: exact receives, time-outs, typed errors.

One thread uses a Connection; `abort` alone may come from another one, at any time.
"""

import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.transports.errors import (
    NfcCertificateMismatch,
    NfcConnectionLost,
    NfcTimedOut,
    NfcUnreachable,
)
from agent.transports.nfc.ticket import NfcTicket

LONGEST_DIAL_S = 20.0
"""A host that is there accepts at once, or after a lost packet or two. Nothing ends this wait."""


class Deadline:
    """The end of several steps together, `timeout_s` from now."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left_s = self._end_s - time.monotonic()
        if left_s < 0.001:  # the kernel takes a time-out of 0 for none
            raise TimeoutError
        return left_s


class Connection:
    """Bytes to and from one host.

    After any error the stream's position is unknown: only `close` is left.
    """

    def __init__(self, sock: socket.socket, ticket: NfcTicket, path: str, timeout_s: float) -> None:
        self._sock = sock
        self._ticket = ticket
        self._path = path
        self._timeout_s = timeout_s
        self._deadline: Deadline | None = None
        self._aborted = False
        self._scratch = memoryview(b"")
        self.doing = "connecting"
        """What the connection is used for just now, for errors."""
        self._set_timeout()

    @classmethod
    def dial(cls, ticket: NfcTicket, path: str, timeout_s: float) -> "Connection":
        """Connect in plain text, to read the disk file `path`. Raises NfcUnreachable."""
        try:
            sock = socket.create_connection(
                (ticket.host, ticket.port), timeout=min(timeout_s, LONGEST_DIAL_S)
            )
        except (OSError, UnicodeError) as error:
            problem = str(error) or "no answer"
            raise NfcUnreachable(ticket.host, ticket.port, path, problem) from error
        # Requests of 60 bytes must not wait for the acknowledgement of others.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(sock, ticket, path, timeout_s)

    @property
    def encrypted(self) -> bool:
        return isinstance(self._sock, ssl.SSLSocket)

    def _set_timeout(self) -> None:
        timeout_s = self._timeout_s
        if self._deadline:
            timeout_s = min(timeout_s, self._deadline.left_s())
        if self.encrypted:
            self._sock.settimeout(timeout_s)
            return
        # Blocking with the kernel's own time-out: one call can then wait for
        # megabytes (MSG_WAITALL), which Python's time-outs rule out.
        self._sock.settimeout(None)
        seconds = int(timeout_s)
        timeval = struct.pack("@ll", seconds, int((timeout_s - seconds) * 1e6))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def start_tls(self) -> None:
        """Shake hands for TLS and check the host's certificate before anything is sent.

        Raises NfcCertificateMismatch, NfcConnectionLost, NfcTimedOut.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The ticket names the certificate itself, which says more than a chain.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with self._translated():
            left_s = self._deadline.left_s() if self._deadline else self._timeout_s
            self._sock.settimeout(min(self._timeout_s, left_s))
            # The handshake is a second step: should it fail, `close` finds the socket.
            wrapped = context.wrap_socket(self._sock, do_handshake_on_connect=False)
            self._sock = wrapped
            self._check_not_aborted()
            wrapped.do_handshake()
        self._check_certificate(wrapped.getpeercert(binary_form=True) or b"")

    def _check_certificate(self, der: bytes) -> None:
        ticket = self._ticket
        sha1, sha256 = hashlib.sha1(der).hexdigest(), hashlib.sha256(der).hexdigest()
        if ticket.certificate_sha256 and sha256 != ticket.certificate_sha256:
            raise NfcCertificateMismatch(
                ticket.host, ticket.port, ticket.certificate_sha256, sha256
            )
        if ticket.thumbprint_sha1:
            if sha1 != ticket.thumbprint_sha1:
                raise NfcCertificateMismatch(ticket.host, ticket.port, ticket.thumbprint_sha1, sha1)
        elif not ticket.certificate_sha256:
            raise NfcCertificateMismatch(
                ticket.host, ticket.port, "the one that the ticket names, but it names none", sha1
            )

    def leave_tls(self) -> None:
        """Go on in plain text on the same connection, without a TLS shutdown.

        `unwrap` would send the shutdown that the host does not expect; a
        duplicate of the descriptor knows nothing of TLS.
        """
        tls = self._sock
        with self._translated():
            self._sock = socket.socket(fileno=os.dup(tls.fileno()))
            tls.close()
            self._set_timeout()

    def send(self, data: bytes) -> None:
        with self._translated():
            self._check_not_aborted()
            self._keep_deadline()
            self._sock.sendall(data)

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes. Raises NfcConnectionLost, NfcTimedOut."""
        if not length:
            return b""
        with self._translated():
            self._keep_deadline()
            if self.encrypted:
                return self._receive_tls(length)
            data = self._sock.recv(length, socket.MSG_WAITALL)
            if len(data) == length:
                return data
            return self._receive_rest(data, length)

    def _receive_rest(self, first: bytes, length: int) -> bytes:
        """A signal, a time-out or the end of the stream cut a receive short."""
        pieces, missing = [first], length - len(first)
        while missing:
            if not pieces[-1]:
                raise ConnectionResetError("the host closed the connection")
            self._keep_deadline()
            pieces.append(self._sock.recv(missing, socket.MSG_WAITALL))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _receive_tls(self, length: int) -> bytes:
        # TLS hands out one record (16 KiB) a call: they gather in a scratch
        # buffer that is kept, so that there is one allocation per receive.
        if len(self._scratch) < length:
            self._scratch = memoryview(bytearray(length))
        scratch, received = self._scratch, 0
        while received < length:
            count = self._sock.recv_into(scratch[received:length])
            if not count:
                raise ConnectionResetError("the host closed the connection")
            received += count
            self._keep_deadline()
        return bytes(scratch[:length])

    def receive_line(self) -> str:
        """One line without its end. Raises NfcConnectionLost also for a line that does not end.

        Byte by byte: what follows the last line belongs to another protocol.
        """
        line = b""
        while not line.endswith(b"\n"):
            if len(line) == 4096:
                self._lost(f"a line of more than 4096 bytes: {line[:40]!r}...")
            line += self.receive(1)
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _lost(self, problem: str) -> None:
        ticket = self._ticket
        raise NfcConnectionLost(ticket.host, ticket.port, self._path, self.doing, problem)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        ticket = self._ticket
        try:
            yield
        except (TimeoutError, BlockingIOError) as error:
            deadline = self._deadline
            waited_s = min(self._timeout_s, deadline.timeout_s) if deadline else self._timeout_s
            raise NfcTimedOut(ticket.host, ticket.port, self._path, waited_s, self.doing) from error
        except (OSError, ValueError) as error:  # ValueError: TLS on a closed descriptor
            problem = str(error) or type(error).__name__
            raise NfcConnectionLost(
                ticket.host, ticket.port, self._path, self.doing, problem
            ) from error

    def set_deadline(self, deadline: Deadline | None) -> None:
        """From now on all steps together end by it; None: each has the whole time-out again."""
        self._deadline = deadline
        with self._translated():
            self._set_timeout()

    def expect_answer(self) -> None:
        """What is received from now on comes within the time-out, all together.

        Otherwise a host that sends a byte now and then is waited for without end.
        """
        self.set_deadline(Deadline(self._timeout_s))

    def _keep_deadline(self) -> None:
        if self._deadline:
            self._set_timeout()

    def _check_not_aborted(self) -> None:
        # `abort` may have met the socket that `start_tls` or `leave_tls` was replacing;
        # either is followed by a send.
        if self._aborted:
            raise ConnectionAbortedError("it was given up here")

    def abort(self) -> None:
        """End what blocks in another thread; the descriptor stays open until `close`."""
        self._aborted = True
        try:
            # SSLSocket.shutdown would take the TLS state away under the other thread.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            return  # not connected any more: nothing blocks

    def close(self, *, polite: bool = False) -> None:
        """Close the descriptor; may be called twice.

        `polite` after a farewell. Otherwise the connection is reset: a host that
        was sending into a full window would learn of a mere close at its next
        probe, half a minute later, and keep its lock on the disk until then.
        """
        if not polite:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
