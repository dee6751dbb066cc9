"""The way through authd (TCP 902) to the NFC service behind it."""

from agent.transports.errors import NfcProtocolViolation, NfcRefused
from agent.transports.nfc.connection import Connection
from agent.transports.nfc.ticket import NfcTicket, Transport

_LONGEST_REPLY_LINES = 32


def log_in(connection: Connection, ticket: NfcTicket, path: str, transport: Transport) -> None:
    """Log in with the ticket and leave authd; NFC's first message comes next.

    authd wants TLS in every case. After it, `nbd` goes on in plain text,
    `nbdssl` shakes hands for TLS a second time on the same connection.

    Raises NfcCertificateMismatch, NfcRefused, NfcTimedOut, NfcConnectionLost; only
    closing the connection makes sense then.
    """
    if any(ord(sign) < 0x21 for sign in ticket.session_id + ticket.service):
        raise NfcProtocolViolation("ticket", "printable words", "one with control characters")
    service = ticket.service + ("ssl" if transport == "nbdssl" else "")

    def expect(code: str, doing: str) -> None:
        if (reply := _reply(connection))[:3] != code:
            raise NfcRefused(ticket.host, ticket.port, path, doing, reply)

    connection.doing = "waiting for the greeting"
    expect("220", "talk")
    connection.doing = "starting TLS"
    connection.start_tls()
    connection.doing = "logging in with the ticket"
    _send_line(connection, f"SESSION {ticket.session_id}")
    _send_line(connection, "BANNER ")
    expect("220", "take the ticket")
    _send_line(connection, "THUMBPRINT_SHA2 PlainText")
    expect("200", "take the ticket")
    _send_line(connection, f"PROXY {service}")
    expect("200", f"connect to {service}")
    connection.doing = "starting NFC"
    connection.leave_tls()
    if transport == "nbdssl":
        connection.start_tls()


def _send_line(connection: Connection, line: str) -> None:
    connection.send(line.encode() + b"\r\n")


def _reply(connection: Connection) -> str:
    """The last line of one reply; `220-...` announces more lines."""
    for _ in range(_LONGEST_REPLY_LINES):
        reply = connection.receive_line()
        if reply[3:4] != "-":
            return reply
    raise NfcProtocolViolation(
        "authd's reply", f"at most {_LONGEST_REPLY_LINES} lines", "one that does not end"
    )
