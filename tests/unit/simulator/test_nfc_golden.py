"""The NFC service against the golden messages: byte for byte, in the order of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.site import SimulatedSite
from tests.data.nfc import golden, names
from tests.unit.simulator.nfc_client import NfcClient

GREETING = [
    "classic-43-authentication",
    "classic-33-hello",
    "classic-51-version",
    "classic-54-client-name",
    "classic-55-features",
    "classic-52-ready",
]
SESSION = [
    "aio-2-open-session",
    "aio-9-set-sock-opts",
    "aio-22-set-res-pool",
    "aio-4-open-file",
    "aio-11-ddb-get",
    "aio-11-ddb-get-unknown",
    "aio-13-query-allocated",
    "aio-7-read",
    "aio-7-read-fragments",
    "aio-7-read-skipz",
    "aio-7-read-skipz-zeros",
    "aio-7-read-fastlz",
    "aio-7-write-refused",
    "aio-5-close-file",
    "aio-3-close-session",
]
END = "classic-4-session-complete"


@pytest.fixture(params=["nfc", "nfcssl"])
def line(site: SimulatedSite, request: pytest.FixtureRequest) -> Iterator[NfcClient]:
    """A connection before the greeting, on the disk that the golden messages speak of."""
    vm = site.add_vm("golden", [DiskSpec(1 << 30)])
    disk = vm.disks[0]
    disk.write(0, b"A" * 512 + b"B" * 512)
    disk.write(GRAIN, b"C" * GRAIN)
    disk.write(3 * GRAIN, b"D" * 4096)
    disk.write(9 * GRAIN, b"E")
    vm.create_snapshot("one")
    disk.write(0, b"later")
    token = site.tickets.issue(vm).token
    client = NfcClient(("127.0.0.2", site.nfc_port), token, request.param, site.certificate_pem)
    yield client
    client.close()


def test_session_answers_the_golden_bytes(line: NfcClient) -> None:
    for name in GREETING + SESSION:
        message = golden(name)
        line.sock.sendall(message["client"])
        if "server" in message:
            assert line.receive(len(message["server"])) == message["server"], name
        elif name.startswith("aio"):
            kind, operation, _ = line.reply()
            assert message["client"][4:8] == kind.to_bytes(4, "little"), name
            assert message["client"][12:16] == operation.to_bytes(4, "little"), name
    line.sock.sendall(golden(END)["client"])
    assert line.sock.recv(1) == b""


def test_every_golden_message_is_part_of_the_session() -> None:
    assert sorted([*GREETING, *SESSION, END]) == names()


def test_classic_messages_have_264_bytes_and_frames_say_their_size() -> None:
    for name in names():
        for section, data in golden(name).items():
            if name.startswith("classic"):
                extra = 11 if name == "classic-54-client-name" else 0
                assert len(data) == 264 + extra, (name, section)
            else:
                assert data[:4] == bytes.fromhex("7ada00a1"), (name, section)
                assert len(data) >= 16 + int.from_bytes(data[8:12], "little"), (name, section)


def test_golden_files_are_hexadecimal_text() -> None:
    folder = Path(__file__).parents[2] / "data" / "nfc"
    assert {path.stem for path in folder.glob("*.hex")} == set(names())
    with pytest.raises(FileNotFoundError):
        golden("no-such-message")
