"""The way through authd (TCP 902) to the NFC service behind it."""

from agent.transports.errors import NfcProtocolViolation, NfcRefused
from agent.transports.nfc.connection import Connection, Deadline
from agent.transports.nfc.ticket import NfcTicket, Transport

_LONGEST_REPLY_LINES = 32


def connect(
    ticket: NfcTicket, transport: Transport, timeout_s: float, deadline: Deadline
) -> Connection:
    """Connect, log in with the ticket and leave authd; NFC's first message comes next.

    authd wants TLS in every case. After it, `nbd` goes on in plain text,
    `nbdssl` shakes hands for TLS a second time on the same connection.
    `deadline` stays in force for the caller's next steps.

    Raises NfcUnreachable, NfcCertificateMismatch, NfcRefused, NfcTimedOut, NfcConnectionLost.
    """
    if any(ord(sign) < 0x21 for sign in ticket.session_id + ticket.service):
        raise NfcProtocolViolation("ticket", "printable words", "one with control characters")
    connection = Connection.dial(ticket, timeout_s)
    try:
        connection.set_deadline(deadline)
        connection.doing = "waiting for the greeting"
        _expect(connection, ticket, "220", "talk")
        connection.doing = "starting TLS"
        connection.start_tls()
        connection.doing = "logging in with the ticket"
        _send_line(connection, f"SESSION {ticket.session_id}")
        _send_line(connection, "BANNER ")
        _expect(connection, ticket, "220", "take the ticket")
        _send_line(connection, "THUMBPRINT_SHA2 PlainText")
        _expect(connection, ticket, "200", "take the ticket")
        service = ticket.service + ("ssl" if transport == "nbdssl" else "")
        _send_line(connection, f"PROXY {service}")
        _expect(connection, ticket, "200", f"connect to {service}")
        connection.doing = "starting NFC"
        connection.leave_tls()
        if transport == "nbdssl":
            connection.start_tls()
    except BaseException:
        connection.close()
        raise
    return connection


def _send_line(connection: Connection, line: str) -> None:
    connection.send(line.encode() + b"\r\n")


def _expect(connection: Connection, ticket: NfcTicket, code: str, doing: str) -> None:
    """Read one reply; `220-...` announces more lines. Raises NfcRefused for another code."""
    for _ in range(_LONGEST_REPLY_LINES):
        reply = connection.receive_line()
        if reply[3:4] != "-":
            break
    else:
        raise NfcProtocolViolation(
            "authd's reply", f"at most {_LONGEST_REPLY_LINES} lines", "one that does not end"
        )
    if reply[:3] != code:
        raise NfcRefused(ticket.host, ticket.port, doing, reply)
