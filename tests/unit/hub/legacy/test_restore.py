"""Restores of imported disks: what changed since the import is never served."""

import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hub.errors import ChainDamaged
from hub.jobs.restore_disk import restore_disk
from hub.legacy import nbd_server
from hub.legacy.errors import NbdFailed, QemuMissing
from hub.legacy.nbd_client import NbdClient
from hub.legacy.nbd_server import served_chain
from hub.repository import RepositoryUnusable
from tests.unit.hub.legacy.conftest import Importer
from tests.unit.hub.legacy.decoded import decoded
from tests.unit.hub.legacy.old_system import OldSystem, group_id, qemu_img

TOP = group_id(2)


@pytest.fixture
def layers(old: OldSystem) -> OldSystem:
    """3 backups of one disk."""
    old.add_context()
    old.add_repository()
    old.add_backups(runs=3, disks=1)
    return old


@pytest.fixture
def imported(importer: Importer, layers: OldSystem) -> OldSystem:
    """The same, imported."""
    assert importer.apply().is_complete
    return layers


def replace_base(old: OldSystem) -> None:
    """Another disk's bytes under the name of the full; the same length, even."""
    base = old.file(0, 0)
    length = base.stat().st_size
    size = len(old.content[base])
    base.unlink()
    qemu_img("create", "-f", "qcow2", str(base), str(size + 512))
    os.truncate(base, length)


CHANGES: dict[str, tuple[Callable[[OldSystem], object], str]] = {
    "missing": (lambda old: old.file(1, 0).unlink(), "is not there"),
    "grown": (lambda old: os.truncate(old.file(1, 0), 1 << 24), "were imported"),
    "cut": (lambda old: os.truncate(old.file(2, 0), 200_000), "were imported"),
    "no QCOW2": (lambda old: old.file(1, 0).write_bytes(bytes(1000)), "not in qcow2 format"),
    "another base": (
        lambda old: qemu_img(
            *("rebase", "-u", "-f", "qcow2", "-b", str(old.file(0, 0)), "-F", "qcow2"),
            str(old.file(2, 0)),
        ),
        "it was imported on",
    ),
    "no base": (
        lambda old: qemu_img("rebase", "-u", "-f", "qcow2", "-b", "", str(old.file(1, 0))),
        "builds on nothing",
    ),
    "another disk": (replace_base, "is a disk of"),
    "a link": (
        lambda old: old.file(1, 0).symlink_to(
            shutil.move(old.file(1, 0), old.folder / "moved.qcow2")
        ),
        "there is a link in its path",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_chain_is_refused_before_a_byte_is_sent(
    importer: Importer, imported: OldSystem, name: str
) -> None:
    change, why = CHANGES[name]
    change(imported)
    with pytest.raises(ChainDamaged) as caught:
        next(restore_disk(importer.parts, TOP, 0))
    assert why in str(caught.value)


def test_cluster_that_cannot_be_read_ends_the_restore_with_its_place(
    importer: Importer, old: OldSystem
) -> None:
    old.add_repository()
    raw = old.folder / "raw"
    raw.write_bytes(random.Random(7).randbytes(3 << 19).hex().encode() + bytes(1 << 20))
    path = old.folder / "packed.qcow2"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(path))
    old.add_row(0, 0, path, full=True, parent=None)
    importer.apply()
    assert decoded(restore_disk(importer.parts, group_id(0), 0)) == raw.read_bytes()
    with path.open("r+b") as file:
        # What is compressed there does not decompress any more; no table tells.
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(b"\xff" * (1 << 19))
    with pytest.raises(ChainDamaged, match=r"bytes [0-9]+ to [0-9]+ of the disk"):
        decoded(restore_disk(importer.parts, group_id(0), 0))


def test_mark_that_is_gone_is_told_as_such(importer: Importer, imported: OldSystem) -> None:
    (imported.folder / "sendense-repository.json").unlink()
    with pytest.raises(RepositoryUnusable):
        next(restore_disk(importer.parts, TOP, 0))


def test_without_qemu_the_package_is_named(
    importer: Importer, imported: OldSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(QemuMissing) as caught:
        next(restore_disk(importer.parts, TOP, 0))
    assert "qemu-utils" in str(caught.value)


# A hub that looks no further when the server has said its first word.
HANGS_AT_THE_GREETING = """
import sys, time
from pathlib import Path
from hub.legacy import nbd_server

started = nbd_server._start

def start(*arguments):
    connection, process = started(*arguments)
    assert connection.recv(1)
    print(process.pid, flush=True)
    time.sleep(60)

nbd_server._start = start
with nbd_server.served_chain([Path(sys.argv[1])]):
    pass
"""


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """The processes that restores start."""
    started: list[subprocess.Popen[bytes]] = []
    start = nbd_server._start

    def note(*arguments: object) -> object:
        connection, process = start(*arguments)  # type: ignore[arg-type]
        started.append(process)
        return connection, process

    monkeypatch.setattr(nbd_server, "_start", note)
    return started


class TestProcess:
    def test_ends_with_the_restore(
        self,
        importer: Importer,
        imported: OldSystem,
        processes: list["subprocess.Popen[bytes]"],
    ) -> None:
        assert (
            decoded(restore_disk(importer.parts, TOP, 0)) == imported.content[imported.file(2, 0)]
        )
        assert [process.poll() is not None for process in processes] == [True]

    def test_ends_when_the_caller_leaves(
        self,
        importer: Importer,
        imported: OldSystem,
        processes: list["subprocess.Popen[bytes]"],
    ) -> None:
        stream = restore_disk(importer.parts, TOP, 0)
        assert next(stream).HasField("header")
        assert next(stream).HasField("frame")
        assert [process.poll() for process in processes] == [None]
        stream.close()  # type: ignore[attr-defined]
        assert processes[0].poll() is not None

    def test_killed_in_the_middle_ends_the_restore(
        self,
        importer: Importer,
        imported: OldSystem,
        processes: list["subprocess.Popen[bytes]"],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("hub.legacy.restore.FRAME_BYTES", 1)
        stream = restore_disk(importer.parts, TOP, 0)
        next(stream)
        next(stream)
        processes[0].kill()
        processes[0].wait(20)
        with pytest.raises(ChainDamaged):
            list(stream)

    def test_ends_with_a_hub_that_is_killed_before_they_shook_hands(
        self, layers: OldSystem
    ) -> None:
        hub = subprocess.Popen(
            [sys.executable, "-c", HANGS_AT_THE_GREETING, str(layers.file(0, 0))],
            stdout=subprocess.PIPE,
        )
        try:
            assert hub.stdout
            server = os.pidfd_open(int(hub.stdout.readline()))
            try:
                assert not select.select([server], [], [], 0)[0]
                hub.kill()
                hub.wait(20)
                ended, _, _ = select.select([server], [], [], 20)
                if not ended:
                    signal.pidfd_send_signal(server, signal.SIGKILL)
                assert ended
            finally:
                os.close(server)
        finally:
            hub.kill()
            hub.communicate(timeout=20)

    def test_does_not_end_with_the_thread_that_asked_for_it(self, layers: OldSystem) -> None:
        path = layers.file(0, 0)
        with ExitStack() as stack:
            clients: list[NbdClient] = []
            asking = threading.Thread(
                target=lambda: clients.append(stack.enter_context(served_chain([path])))
            )
            asking.start()
            asking.join(20)
            # The kernel's thread is gone a little later.
            task, deadline = Path(f"/proc/self/task/{asking.native_id}"), time.monotonic() + 20
            while task.exists():
                assert time.monotonic() < deadline
            (client,) = clients
            assert client.read(0, 4096) == layers.content[path][:4096]

    def test_layer_that_is_being_written_is_not_read(self, layers: OldSystem) -> None:
        top = layers.file(2, 0)
        writer = subprocess.Popen(
            ["qemu-io", "-f", "qcow2", str(top)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert writer.stdin and writer.stdout
            writer.stdin.write(b"length\n")
            writer.stdin.flush()
            assert writer.stdout.readline()
            with pytest.raises(NbdFailed, match="lock"), served_chain([top]):
                pass
        finally:
            writer.kill()
            writer.communicate(timeout=20)

    def test_reader_of_the_chain_alone_is_no_obstacle(
        self, importer: Importer, imported: OldSystem
    ) -> None:
        layers = [imported.file(run, 0) for run in (2, 1, 0)]
        with served_chain(layers) as client:
            assert client.size_bytes == len(imported.content[layers[0]])
            assert decoded(restore_disk(importer.parts, TOP, 0)) == imported.content[layers[0]]


class TestClient:
    """What a server may say instead of what was asked."""

    @pytest.fixture
    def ends(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours, theirs

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (b"", "ended the connection"),
            (b"HTTP/1.1 400 Bad Request\r\n", "does not greet"),
            (b"NBDMAGIC" + bytes.fromhex("00420281861253") + bytes(9), "does not greet"),
            (b"NBDMAGICIHAVEOPT\0\1", "older than this client"),
            (b"NBDMAGICIHAVEOPT\0\3" + bytes(20), "not answered as it should be"),
            (
                b"NBDMAGICIHAVEOPT\0\3"
                + (0x3E889045565A9).to_bytes(8, "big")
                + (8).to_bytes(4, "big")
                + (0x80000001).to_bytes(4, "big")
                + (2).to_bytes(4, "big")
                + b"no",
                "option 8 is refused",
            ),
        ],
        ids=["nothing", "http", "oldstyle", "zeroes", "noise", "refusal"],
    )
    def test_handshake_that_is_none_is_refused(
        self, ends: tuple[socket.socket, socket.socket], said: bytes, why: str
    ) -> None:
        ours, theirs = ends
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(NbdFailed, match=why):
            NbdClient(ours)

    def test_silent_server_is_given_up(
        self, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hub.legacy.nbd_client.ANSWER_TIMEOUT_S", 0.05)
        with pytest.raises(NbdFailed, match="no answer"):
            NbdClient(ends[0])

    @pytest.mark.parametrize(
        ("chunk", "why"),
        [
            ("0001 0001 {cookie} 0000000c 0000000000000000 41414141", "4 bytes answer a read of 8"),
            ("0001 0001 {cookie} 00000010 0000000000000004 4141414141414141", "other bytes"),
            ("0001 0002 {cookie} 0000000c 0000000000000000 00000009", "other bytes"),
            ("0001 0001 00000000000000ff 00000000", "to request 255"),
            ("0001 0005 {cookie} 0000000c 00000001 00000008 00000000", "chunk of type 5"),
            ("0001 8001 {cookie} 00000006 00000005 0000", "error 5"),
        ],
        ids=["short", "beyond", "hole beyond", "another request", "status", "error"],
    )
    def test_answer_that_is_not_the_request_is_refused(
        self, layers: OldSystem, chunk: str, why: str
    ) -> None:
        with served_chain([layers.file(0, 0)]) as client:
            ours, theirs = socket.socketpair()
            real, client._socket = client._socket, ours
            cookie = f"{client._cookie + 1:016x}"
            theirs.sendall(bytes.fromhex(f"668e33ef {chunk.format(cookie=cookie)}"))
            try:
                with pytest.raises(NbdFailed, match=why):
                    client.read(0, 8)
            finally:
                client._socket = real
                ours.close()
                theirs.close()


def test_socket_of_the_chain_is_in_no_folder(
    layers: OldSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short, as a socket's path has to be.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with served_chain([layers.file(0, 0)]):
            assert list(Path(folder).iterdir()) == []
