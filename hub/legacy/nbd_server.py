"""A chain of QCOW2 layers, read-only, behind a qemu-nbd process of its own."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from hub.legacy.errors import NbdFailed
from hub.legacy.nbd_client import NbdClient
from hub.legacy.qemu import ENVIRONMENT, image_name, program, said

LEAVE_S: Final = 5.0
# The server gets our listening socket as if systemd had opened it. So the client is
# connected before the program runs: nobody waits for a socket to appear, and a
# server whose hub is gone finds its only client gone, too, and ends.
_HAND_OVER: Final = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null'


@contextmanager
def served_chain(layers: Sequence[Path]) -> Iterator[NbdClient]:
    """A client of the disk that these layers, newest first, make. The process ends with the block.

    QEMU holds shared locks on the files meanwhile: a layer that somebody writes
    to cannot be opened, and nobody can begin to. Raises NbdFailed with the
    program's own words, ImageUnfit, QemuMissing.
    """
    command = [
        *("/bin/sh", "-c", _HAND_OVER, "sh"),
        *(program("qemu-nbd"), "--read-only", image_name(layers)),
    ]
    with tempfile.TemporaryFile() as words:
        client_end, process = _start(command, words)
        client: NbdClient | None = None
        try:
            client = NbdClient(client_end)
            yield client
        except NbdFailed as error:
            _end(process)
            words.seek(0)
            told = said(words.read())
            raise NbdFailed(f"{error}; qemu-nbd says: {told}" if told else str(error)) from error
        finally:
            (client or client_end).close()
            _end(process)


def _start(
    command: Sequence[str], words: IO[bytes]
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    client_end = socket.socket(socket.AF_UNIX)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="sendense-nbd-") as folder,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            address = str(Path(folder) / "s")
            listener.bind(address)
            listener.listen(1)
            client_end.settimeout(LEAVE_S)
            client_end.connect(address)
            process = subprocess.Popen(
                command,
                stdin=listener.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=words,
                env=ENVIRONMENT,
                start_new_session=True,
            )
    except OSError as error:
        client_end.close()
        raise NbdFailed(f"qemu-nbd cannot be started: {error}") from error
    return client_end, process


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: it reads, so there is nothing that it must finish. May be called twice."""
    if process.poll() is None:
        process.kill()
        process.wait(LEAVE_S)
