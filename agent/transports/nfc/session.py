"""An NFC session with one disk file open: the handshake, then AIO frames."""

from agent.transports.errors import NfcOpenRefused, NfcProtocolViolation, NfcRefused
from agent.transports.nfc import aio, classic
from agent.transports.nfc.aio import Aio, AioHeader
from agent.transports.nfc.classic import Classic
from agent.transports.nfc.connection import Connection, Deadline
from agent.transports.nfc.ticket import NfcTicket

BUFFER_BYTES = 2 << 20
"""The largest that ESXi takes; it bounds the data of one fragment."""


class RequestRefused(Exception):
    """The host answered a request with an error frame; the connection is sound."""

    def __init__(self, reply: bytes) -> None:
        # Only the first number is known to be a code; the rest may be anything.
        code = f"error {classic.u32_at(reply, 0):#x}" if len(reply) >= 4 else "an error"
        super().__init__(f"the host answered {code}")


class Session:
    """AIO requests and replies on one connection. One thread uses it."""

    def __init__(self, connection: Connection, ticket: NfcTicket, path: str) -> None:
        self._connection = connection
        self._ticket = ticket
        self._next_op_id = 0
        self.path = path
        """Of the disk file that the session is for."""

    @property
    def host(self) -> str:
        return self._ticket.host

    def start(self, buffer_count: int) -> None:
        """Handshake and AIO session. Raises NfcRefused, NfcProtocolViolation, TransportErrors."""
        connection = self._connection
        connection.doing = "starting NFC"
        connection.send(classic.security_message() + classic.message(Classic.START))
        reply = self._receive_classic(Classic.START_REPLY)
        if classic.u32_at(reply, 16) != 1:
            raise NfcProtocolViolation("NFC start reply", "1", str(classic.u32_at(reply, 16)))
        connection.send(classic.version_message())
        self._receive_classic(Classic.VERSION)
        connection.send(
            classic.client_name_message(b"sendense", b"backup")
            + classic.features_message()
            + classic.message(Classic.READY)
        )
        self._receive_classic(Classic.READY)
        for kind, payload, doing in (
            (
                Aio.OPEN_SESSION,
                aio.OpenSession(BUFFER_BYTES, buffer_count).pack(),
                f"give {buffer_count} buffers of {BUFFER_BYTES} bytes",
            ),
            (Aio.SET_SOCK_OPTS, aio.SOCK_OPTS_PAYLOAD, "set socket options"),
            (Aio.SET_RES_POOL, aio.RES_POOL_PAYLOAD, "set the resource pool"),
        ):
            try:
                self.ask(kind, payload)
            except RequestRefused as error:
                raise NfcRefused(
                    self.host, self._ticket.port, self.path, doing, str(error)
                ) from error

    def _receive_classic(self, kind: Classic) -> bytes:
        message = self._connection.receive(classic.CLASSIC_BYTES)
        if classic.u32_at(message, 0) != kind:
            raise NfcProtocolViolation(
                "NFC message type", str(int(kind)), str(classic.u32_at(message, 0))
            )
        return message

    def open_file(self) -> aio.OpenedFile:
        """Open the disk file read-only. Raises NfcOpenRefused, NfcProtocolViolation."""
        self._connection.doing = "opening the disk"
        name = self.path.encode()
        try:
            payload = self.ask(Aio.OPEN_FILE, aio.OpenFile(len(name)).pack(), name)
        except RequestRefused as error:
            raise NfcOpenRefused(self.host, self.path, str(error)) from error
        return aio.OpenedFile.unpack(payload)

    def send(self, kind: Aio, payload: bytes, extra: bytes = b"") -> int:
        """Send one request; returns its operation id."""
        op_id = self._next_op_id
        self._next_op_id = (op_id + 1) & 0xFFFFFFFF
        self._connection.send(AioHeader(kind, len(payload), op_id).pack() + payload + extra)
        return op_id

    def expect_answer(self) -> None:
        """What is received from now on comes within one time-out, all together."""
        self._connection.expect_answer()

    def receive_header(self) -> AioHeader:
        return AioHeader.unpack(self._connection.receive(AioHeader.LAYOUT.size))

    def receive(self, length: int) -> bytes:
        """Payload or extra, after its length was checked."""
        return self._connection.receive(length)

    def receive_error(self, header: AioHeader) -> RequestRefused:
        """The payload of an error frame, as an exception to raise or translate."""
        return RequestRefused(self._receive_small(header))

    def _receive_small(self, header: AioHeader) -> bytes:
        if header.size_bytes > aio.SMALL_REPLY_BYTES:
            raise NfcProtocolViolation(
                "reply's size", f"at most {aio.SMALL_REPLY_BYTES}", str(header.size_bytes)
            )
        return self._connection.receive(header.size_bytes)

    def ask(self, kind: Aio, payload: bytes, extra: bytes = b"") -> bytes:
        """Send one request while none is outstanding; returns the payload of its reply.

        Raises RequestRefused when the host answers with an error frame.
        """
        op_id = self.send(kind, payload, extra)
        header = self.receive_header()
        if header.op_id != op_id:
            raise NfcProtocolViolation("operation id", str(op_id), str(header.op_id))
        if header.kind == Aio.ERROR:
            raise self.receive_error(header)
        if header.kind != kind:
            raise NfcProtocolViolation("reply's type", str(int(kind)), str(header.kind))
        return self._receive_small(header)

    def finish(self, handle: int, deadline: Deadline) -> None:
        """Close file and session in good order. Raises RequestRefused, TransportErrors."""
        self._connection.set_deadline(deadline)
        self._connection.doing = "closing the disk"
        self.ask(Aio.CLOSE_FILE, aio.CLOSE_FILE.pack(handle))
        self.ask(Aio.CLOSE_SESSION, aio.CLOSE_SESSION_PAYLOAD)
        self._connection.send(classic.message(Classic.SESSION_COMPLETE))
