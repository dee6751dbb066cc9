"""The VMware authentication daemon (port 902 of a host): TLS, a ticket, then NFC."""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Final

from simulator.behaviour import Behaviour
from simulator.certificate import HostCertificate
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.faults.nfc_kinds import NfcConnectionLimit, NfcTicketExpired, NfcTicketRefused
from simulator.nfc.channel import Channel
from simulator.nfc.session import NfcSession, ProtocolBroken
from simulator.nfc.tickets import Ticket, Tickets
from simulator.nfc.wire import Closed, Wire

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
        faults: FaultBoard,
        expire_sessions: Callable[[], object],
    ) -> None:
        """`expire_sessions` ends all login sessions of the API."""
        self._tickets = tickets
        self._behaviour = behaviour
        self._faults = faults
        self._expire_sessions = expire_sessions
        self._lock = threading.Lock()
        self._live = 0
        self._most_live = 0
        self.present(certificate)
        self._connections: dict[int, socket.socket] = {}
        self._numbers = 0
        self._closing = False
        self._listener = socket.create_server(listen, backlog=64)
        self._thread = threading.Thread(target=self._accept, name="authd", daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def sessions(self) -> int:
        """NFC sessions that are open now."""
        with self._lock:
            return self._live

    @property
    def most_sessions(self) -> int:
        """The most NFC sessions that were open at a time."""
        with self._lock:
            return self._most_live

    def present(self, certificate: HostCertificate) -> None:
        """Show this certificate on connections from now on."""
        with self._lock:
            self._certificate_sha256 = certificate.sha256
            self._tls = certificate.server_context()

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
            kept = self._connections[number] = connection.dup()
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._converse(connection, Wire(self._faults, kept))
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

    def _converse(self, connection: socket.socket, wire: Wire) -> None:
        connection.settimeout(_HANDSHAKE_S)
        with self._lock:
            tls, sha256 = self._tls, self._certificate_sha256
        wire.send(connection.sendall, _BANNER.encode("ascii"))
        with tls.wrap_socket(connection, server_side=True) as secured:
            granted = self._authenticate(secured, wire, sha256)
            if granted is None:
                return
            # No TLS shutdown: the descriptor alone goes on, and what wrapped it forgets it.
            plain = socket.socket(fileno=secured.detach())
        ticket, secure = granted
        with plain:
            plain.settimeout(_HANDSHAKE_S)
            stream = tls.wrap_socket(plain, server_side=True) if secure else plain
            with stream, self._counted():
                channel = Channel(
                    stream,
                    wire,
                    receive_s=self._behaviour.nfc_idle_s,
                    send_s=self._behaviour.nfc_send_s,
                )
                NfcSession(
                    channel, ticket, self._behaviour, self._faults, self._expire_sessions
                ).serve()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """One session more while the block runs. Raises Closed when the host takes no more."""
        with self._lock:
            self._live += 1
            live = self._live
            self._most_live = max(self._most_live, live)
        try:
            if self._faults.fire(NfcConnectionLimit, None, lambda kind: live > kind.limit):
                raise Closed("more connections than the host takes")
            yield
        finally:
            with self._lock:
                self._live -= 1

    def _authenticate(
        self, secured: ssl.SSLSocket, wire: Wire, sha256: str
    ) -> tuple[Ticket, bool] | None:
        """(ticket, whether NFC is to run inside TLS); None when the client gave up."""

        def answer(line: str) -> None:
            wire.send(secured.sendall, f"{line}\r\n".encode("ascii"))

        token = ""
        service = self._behaviour.site.nfc_service
        while True:
            command, _, argument = _line(secured).partition(" ")
            if command == "SESSION":
                token = argument
            elif command == "BANNER":
                answer(_BANNER.rstrip())
            elif command == "THUMBPRINT_SHA2" and argument:
                answer(f"200 {sha256}")
            elif command == "PROXY" and argument in (service, service + _SECURE_SUFFIX):
                ticket = self._tickets.find(token)
                if ticket:
                    wire.place = Place(ticket.vm.moid, ticket.disk_key)
                    if self._faults.fire(NfcTicketRefused, wire.place):
                        answer("530 Login incorrect")
                        continue
                    if self._faults.fire(NfcTicketExpired, wire.place):
                        self._tickets.redeem(token)
                ticket = self._tickets.redeem(token)
                if ticket is None:
                    answer("530 Please login with USER and PASS")
                    continue
                secure = argument.endswith(_SECURE_SUFFIX)
                answer(f"200 Connect {_ENDPOINT}{_SECURE_SUFFIX if secure else ''}")
                return ticket, secure
            elif command == "QUIT":
                answer("221 Goodbye")
                return None
            elif command in ("THUMBPRINT_SHA2", "PROXY"):
                answer("501 Invalid arguments")
            else:
                answer("500 Unknown command")


def _line(secured: ssl.SSLSocket) -> str:
    """One CRLF-ended line, read byte by byte: nothing after it may be taken from the stream."""
    line = bytearray()
    while not line.endswith(b"\r\n"):
        byte = secured.recv(1)
        if not byte or len(line) > _LONGEST_LINE:
            raise Closed("no complete line")
        line += byte
    return line[:-2].decode("utf-8", "replace")
