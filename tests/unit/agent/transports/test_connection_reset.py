"""A connection that is broken off is reset: the host must not hold a disk for somebody who left."""

import socket
import threading

import pytest

from agent.transports.nfc.connection import Connection
from agent.transports.nfc.ticket import NfcTicket

DEADLINE_S = 10.0


class _Sender:
    """A host that sends into the connection until its window is full, then waits to send on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.window_full = threading.Event()
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            data = bytes(1 << 20)
            peer.settimeout(0.3)
            try:
                while True:
                    peer.send(data)
            except TimeoutError:
                self.window_full.set()
            peer.settimeout(DEADLINE_S)
            try:
                while True:
                    peer.send(data)
            except OSError as error:
                self.error = error

    def ended_with(self) -> OSError | None:
        self._thread.join(2 * DEADLINE_S)
        self._listener.close()
        return self.error


def test_a_host_that_sends_into_a_full_window_learns_at_once_that_the_reader_left() -> None:
    host = _Sender()
    ticket = NfcTicket(
        host="127.0.0.1",
        port=host.port,
        service="nfc",
        session_id="none",
        thumbprint_sha1="",
    )
    connection = Connection.dial(ticket, "[ds] a.vmdk", timeout_s=DEADLINE_S)
    assert host.window_full.wait(DEADLINE_S)
    # As when a read is cut by another thread: what had arrived is taken, then it is over.
    connection.abort()
    with pytest.raises(Exception, match="closed the connection"):
        connection.receive(1 << 30)
    connection.close()
    assert isinstance(host.ended_with(), ConnectionError)
