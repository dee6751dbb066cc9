"""The VMware authentication daemon (port 902 of a host): TLS, a ticket, then NFC."""

import contextlib
import logging
import socket
import ssl
import threading
from typing import Final

from simulator.behaviour import Behaviour, Faults
from simulator.certificate import HostCertificate
from simulator.nfc.channel import Channel, Closed
from simulator.nfc.session import NfcSession, ProtocolBroken
from simulator.nfc.tickets import Ticket, Tickets

_log = logging.getLogger(__name__)

_BANNER: Final = (
    "220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, "
    "MKSDisplayProtocol:VNC , VMXARGS supported, NFCSSL supported/t, SHA256 supported\r\n"
)
_SECURE_SUFFIX: Final = "ssl"
_ENDPOINT: Final = "ha-nfc"  # what authd connects to, whatever the service asked for is called
_HANDSHAKE_S: Final = 15.0
_LONGEST_LINE: Final = 1024
_SHUTDOWN_S: Final = 10.0


class AuthDaemon:
    """Listens at once; `start` serves each connection in a thread, `close` ends them."""

    def __init__(
        self,
        listen: tuple[str, int],
        certificate: HostCertificate,
        tickets: Tickets,
        behaviour: Behaviour,
        faults: Faults,
    ) -> None:
        self._certificate_sha256 = certificate.sha256
        self._tls = certificate.server_context()
        self._tickets = tickets
        self._behaviour = behaviour
        self._faults = faults
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._numbers = 0
        self._closing = False
        self._listener = socket.create_server(listen, backlog=64)
        self._thread = threading.Thread(target=self._accept, name="authd", daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and drop all connections."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(_SHUTDOWN_S)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Cut every connection, as a host that dies does."""
        with self._lock:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(
                target=self._serve, args=(connection,), name="nfc", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        # A duplicate of the descriptor stays in the table: the socket objects change hands
        # between TLS and NFC, but the connection they stand for is one.
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._connections[number] = connection.dup()
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._converse(connection)
        except (OSError, Closed):
            pass  # the client went away or was too slow: nobody is left to tell
        except ProtocolBroken as error:
            _log.warning("NFC connection dropped: %s", error)
        finally:
            with self._lock:
                leftover = self._connections.pop(number)
            with contextlib.suppress(OSError):
                leftover.shutdown(socket.SHUT_RDWR)
            leftover.close()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_S)
        connection.sendall(_BANNER.encode("ascii"))
        with self._tls.wrap_socket(connection, server_side=True) as secured:
            granted = self._authenticate(secured)
            if granted is None:
                return
            # No TLS shutdown: the descriptor alone goes on, and what wrapped it forgets it.
            plain = socket.socket(fileno=secured.detach())
        ticket, secure = granted
        with plain:
            plain.settimeout(_HANDSHAKE_S)
            stream = self._tls.wrap_socket(plain, server_side=True) if secure else plain
            with stream:
                channel = Channel(
                    stream,
                    receive_s=self._behaviour.nfc_idle_s,
                    send_s=self._behaviour.nfc_send_s,
                )
                NfcSession(channel, ticket, self._behaviour, self._faults).serve()

    def _authenticate(self, secured: ssl.SSLSocket) -> tuple[Ticket, bool] | None:
        """(ticket, whether NFC is to run inside TLS); None when the client gave up."""
        token = ""
        service = self._behaviour.site.nfc_service
        while True:
            command, _, argument = _line(secured).partition(" ")
            if command == "SESSION":
                token = argument
            elif command == "BANNER":
                secured.sendall(_BANNER.encode("ascii"))
            elif command == "THUMBPRINT_SHA2" and argument:
                _answer(secured, f"200 {self._certificate_sha256}")
            elif command == "PROXY" and argument in (service, service + _SECURE_SUFFIX):
                ticket = self._tickets.redeem(token)
                if ticket is None:
                    _answer(secured, "530 Please login with USER and PASS")
                    continue
                secure = argument.endswith(_SECURE_SUFFIX)
                _answer(secured, f"200 Connect {_ENDPOINT}{_SECURE_SUFFIX if secure else ''}")
                return ticket, secure
            elif command == "QUIT":
                _answer(secured, "221 Goodbye")
                return None
            elif command in ("THUMBPRINT_SHA2", "PROXY"):
                _answer(secured, "501 Invalid arguments")
            else:
                _answer(secured, "500 Unknown command")


def _line(secured: ssl.SSLSocket) -> str:
    """One CRLF-ended line, read byte by byte: nothing after it may be taken from the stream."""
    line = bytearray()
    while not line.endswith(b"\r\n"):
        byte = secured.recv(1)
        if not byte or len(line) > _LONGEST_LINE:
            raise Closed("no complete line")
        line += byte
    return line[:-2].decode("utf-8", "replace")


def _answer(secured: ssl.SSLSocket, line: str) -> None:
    secured.sendall(f"{line}\r\n".encode("ascii"))
