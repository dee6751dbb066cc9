"""How opens and reads of the client end early: silence, cut connections, refusals, cancellations."""

import threading
from pathlib import Path
from typing import Literal

import pytest

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.transports.disk_reader import Extent
from agent.transports.errors import (
    NfcCertificateMismatch,
    NfcConnectionLost,
    NfcOpenRefused,
    NfcProtocolViolation,
    NfcRefused,
    NfcTimedOut,
    NfcUnreachable,
    ReaderClosed,
    TransportError,
)
from agent.transports.nfc import reader as reader_module
from agent.transports.nfc.connection import Deadline
from agent.transports.nfc.reader import NfcDiskReader
from agent.transports.nfc.ticket import NfcTicket
from tests.contracts.nfc import golden
from tests.contracts.nfc.scripted_host import Line, ScriptedHost, farewell, open_disk
from tests.contracts.nfc.scripted_reads import ASKED, DATA, PLAIN, plain_host, reader_of


def test_host_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        line.send(golden.read_fragment(*ASKED, "00000000", "00040000", b"d" * 1024)[:100])
        line.expect_end()

    with (
        plain_host(tmp_path, script) as host,
        reader_of(host, timeout_s=0.3) as reader,
        pytest.raises(NfcTimedOut, match="reading"),
    ):
        list(reader.read([Area(0, 1024)]))


@pytest.mark.parametrize("sent", [0, 1, 16, 40, 60, 61, 1083])
def test_cut_connection_is_an_error_wherever_it_is_cut(tmp_path: Path, sent: int) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        line.send(golden.read_fragment(*ASKED, "00000000", "00040000", b"d" * 1024)[:sent])

    with (
        plain_host(tmp_path, script) as host,
        reader_of(host) as reader,
        pytest.raises(NfcConnectionLost),
    ):
        list(reader.read([Area(0, 1024)]))


@pytest.mark.parametrize("transport", ["nbd", "nbdssl"])
def test_close_from_another_thread_ends_a_blocked_read(
    tmp_path: Path, transport: Literal["nbd", "nbdssl"]
) -> None:
    asked = threading.Event()

    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        asked.set()
        line.expect_end()

    with (
        ScriptedHost(tmp_path, script, encrypted=transport == "nbdssl") as host,
        reader_of(host, transport, timeout_s=30) as reader,
    ):
        closer = threading.Thread(target=lambda: asked.wait(10) and reader.close())
        closer.start()
        with pytest.raises(ReaderClosed):
            list(reader.read([Area(0, 1024)]))
        closer.join(10)


def test_leaving_a_read_early_closes_the_reader(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request("04000000", "0000000000000000", "00020000"))
        line.expect(golden.read_request("05000000", "0002000000000000", "00020000"))
        where = ("04000000", "0000000000000000", "00020000")
        line.send(golden.read_fragment(*where, "00000000", "00020000", DATA))
        line.expect_end()

    with plain_host(tmp_path, script) as host, reader_of(host) as reader:
        extents = reader.read([Area(0, 512), Area(512, 512)])
        assert next(extents) == Extent(0, DATA)
        extents.close()  # type: ignore[attr-defined]
        with pytest.raises(ReaderClosed):
            reader.allocated_areas()


def test_open_that_is_refused_names_the_file(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        line.expect(golden.SECURITY + golden.START)
        line.send(golden.START_REPLY)
        line.expect(golden.VERSION)
        line.send(golden.VERSION)
        line.expect(golden.CLIENT_NAME + golden.FEATURES + golden.READY)
        line.send(golden.READY)
        line.expect(golden.OPEN_SESSION)
        line.send(golden.OPEN_SESSION_REPLY)
        line.expect(golden.SET_SOCK_OPTS)
        line.send(golden.SET_SOCK_OPTS_REPLY)
        line.expect(golden.SET_RES_POOL)
        line.send(golden.SET_RES_POOL_REPLY)
        line.expect(golden.OPEN_FILE)
        line.send(golden.error_reply("03000000"))
        line.expect_end()

    with plain_host(tmp_path, script) as host, pytest.raises(NfcOpenRefused, match="pg-0001"):
        reader_of(host)


def test_used_ticket_is_refused_with_the_hosts_words(tmp_path: Path) -> None:
    def authd(line: Line) -> None:
        line.expect(b"SESSION one-time\r\nBANNER \r\n")
        line.send(b"220 VMware Authentication Daemon Version 1.10\r\n")
        line.expect(b"THUMBPRINT_SHA2 PlainText\r\n")
        line.send(b"200 AB\r\n")
        line.expect(b"PROXY ha-nfc\r\n")
        line.send(b"530 Please login with USER and PASS\r\n")
        line.expect_end()

    def never(line: Line) -> None:
        raise AssertionError

    host = ScriptedHost(tmp_path, never, encrypted=False, authd=authd)
    with pytest.raises(AssertionError), host:  # the script ends with the refused login
        with pytest.raises(NfcRefused, match="530 Please login") as caught:
            reader_of(host)
        assert "one-time" not in str(caught.value) + repr(host.ticket())


@pytest.mark.parametrize(
    "facts",
    [
        {"thumbprint_sha1": "00" * 20},
        {"thumbprint_sha1": ""},
        {"certificate_sha256": "11" * 32},
    ],
    ids=["another", "none", "another pinned"],
)
def test_wrong_certificate_ends_it_before_the_ticket_is_sent(
    tmp_path: Path, facts: dict[str, str]
) -> None:
    seen: list[bytes] = []

    def authd(line: Line) -> None:
        seen.append(line.sock.recv(100))
        raise ConnectionAbortedError

    host = ScriptedHost(tmp_path, lambda line: None, authd=authd)
    with pytest.raises(ConnectionAbortedError), host, pytest.raises(NfcCertificateMismatch):
        NfcDiskReader.open(host.ticket(**facts), golden.PATH, timeout_s=10)
    assert seen == [b""]


def test_unreachable_host_is_named(tmp_path: Path) -> None:
    with plain_host(tmp_path, lambda line: None) as host:
        ticket = host.ticket()
        with pytest.raises(TransportError):
            reader_of(host)
    with pytest.raises(NfcUnreachable, match=f"127.0.0.2:{ticket.port}"):
        NfcDiskReader.open(ticket, golden.PATH, timeout_s=5)
    nowhere = NfcTicket("no-such-host.invalid", 902, "00" * 20, "ha-nfc", "secret")
    with pytest.raises(NfcUnreachable, match=r"no-such-host\.invalid"):
        NfcDiskReader.open(nowhere, golden.PATH, timeout_s=5)


class ScriptEnds(Exception):
    pass


def test_reply_that_never_ends_is_refused(tmp_path: Path) -> None:
    def authd(line: Line) -> None:
        line.expect(b"SESSION one-time\r\nBANNER \r\n")
        line.send(b"220-and so on\r\n" * 40)
        line.expect_end()

    host = ScriptedHost(tmp_path, lambda line: None, encrypted=False, authd=authd)
    with pytest.raises(ScriptEnds), host:  # in mid-authd, so that its rest fails
        with pytest.raises(NfcProtocolViolation, match="authd's reply"):
            reader_of(host)
        raise ScriptEnds


def test_host_that_answers_in_drops_does_not_hold_an_open_for_ever(tmp_path: Path) -> None:
    """Each byte comes in time, all of them together do not."""
    left = threading.Event()

    def authd(line: Line) -> None:
        line.expect(b"SESSION one-time\r\nBANNER \r\n")
        try:
            for _ in range(1000):
                line.send(b"2")
                if left.wait(0.05):
                    return
        except OSError:
            return

    host = ScriptedHost(tmp_path, lambda line: None, encrypted=False, authd=authd)
    with pytest.raises(ScriptEnds), host:  # in mid-authd, so that its rest fails
        with pytest.raises(NfcTimedOut, match="logging in"):
            reader_of(host, timeout_s=0.5)
        left.set()
        raise ScriptEnds


@pytest.mark.parametrize("transport", ["nbd", "nbdssl"])
def test_deadline_of_the_open_does_not_end_later_reads(
    tmp_path: Path, transport: Literal["nbd", "nbdssl"], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        line.send(golden.read_fragment(*ASKED, "00000000", "00040000", b"d" * 1024))
        farewell(line, 5)

    opening: list[Deadline] = []

    class Noted(Deadline):
        def __init__(self, timeout_s: float) -> None:
            super().__init__(timeout_s)
            opening.append(self)

    monkeypatch.setattr(reader_module, "Deadline", Noted)
    with (
        ScriptedHost(tmp_path, script, encrypted=transport == "nbdssl") as host,
        reader_of(host, transport, timeout_s=10) as reader,
    ):
        (deadline,) = opening
        deadline._end_s = 0.0  # all the time of the open is over
        with pytest.raises(TimeoutError):
            deadline.left_s()
        assert list(reader.read([Area(0, 1024)])) == [Extent(0, b"d" * 1024)]


@pytest.mark.parametrize("transport", ["nbd", "nbdssl"])
def test_reply_that_comes_in_drops_is_given_up(
    tmp_path: Path, transport: Literal["nbd", "nbdssl"]
) -> None:
    """Each byte comes in time, all of them together do not."""
    left = threading.Event()
    reply = golden.read_fragment(*ASKED, "00000000", "00040000", b"d" * 1024)

    def script(line: Line) -> None:
        open_disk(line)
        line.expect(golden.read_request(*ASKED))
        try:
            for byte in reply:
                line.send(bytes([byte]))
                if left.wait(0.05):
                    return
        except OSError:
            return

    with (
        ScriptedHost(tmp_path, script, encrypted=transport == "nbdssl") as host,
        reader_of(host, transport, timeout_s=0.5) as reader,
    ):
        with pytest.raises(NfcTimedOut, match=r"0.5 s while reading \(\[ds\]"):
            list(reader.read([Area(0, 1024)]))
        left.set()


def test_more_is_not_asked_for_at_a_time_than_was_granted(tmp_path: Path) -> None:
    def script(line: Line) -> None:
        open_disk(line, "01000000")
        for number in range(2):
            where = (f"0{4 + number}000000", f"000{2 * number}000000000000", "00020000")
            line.expect(golden.read_request(*where))
            line.expect_silence(0.1)
            line.send(golden.read_fragment(*where, "00000000", "00020000", DATA))
        farewell(line, 6)

    with (
        plain_host(tmp_path, script) as host,
        NfcDiskReader.open(
            host.ticket(),
            golden.PATH,
            transport="nbd",
            compression=PLAIN,
            timeout_s=10,
            requests=1,
        ) as reader,
    ):
        assert list(reader.read([Area(0, 512), Area(512, 512)])) == [
            Extent(0, DATA),
            Extent(512, DATA),
        ]


def test_open_is_broken_off_by_a_cancellation(tmp_path: Path) -> None:
    asked = threading.Event()
    stop = Cancellation()

    def authd(line: Line) -> None:
        line.expect(b"SESSION one-time\r\nBANNER \r\n")
        asked.set()
        line.expect_end()

    host = ScriptedHost(tmp_path, lambda line: None, encrypted=False, authd=authd)
    with pytest.raises(ScriptEnds), host:  # in mid-authd, so that its rest fails
        canceller = threading.Thread(
            target=lambda: asked.wait(10) and stop.cancel(RuntimeError("enough"))
        )
        canceller.start()
        with pytest.raises(NfcConnectionLost, match="logging in"):
            NfcDiskReader.open(host.ticket(), golden.PATH, transport="nbd", timeout_s=30, stop=stop)
        canceller.join(10)
        raise ScriptEnds
