"""A chain of QCOW2 layers, read-only, behind a qemu-nbd process of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Final

from hub.legacy.errors import NbdFailed
from hub.legacy.nbd_client import NbdClient
from hub.legacy.qemu import ENVIRONMENT, image_name, program, said

LEAVE_S: Final = 5.0
# The server gets our listening socket as if systemd had opened it. So the client is
# connected before the program runs: nobody waits for a socket to appear, and a
# server whose hub is gone finds its only client gone, too, and ends. Before they have
# shaken hands it would go on listening: then the kernel ends it, which was told so,
# unless the hub was gone before the kernel was told.
_HAND_OVER: Final = (
    'test "$PPID" = "$0" || exit; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null'
)
_END_WITH_PARENT: Final = ("--pdeathsig", "KILL")
# To the kernel the parent is the thread that starts the process. This one stays.
_starter: Final = ThreadPoolExecutor(1, thread_name_prefix="qemu-nbd-starter")


@contextmanager
def served_chain(layers: Sequence[Path]) -> Iterator[NbdClient]:
    """A client of the disk that these layers, newest first, make. The process ends with the block.

    QEMU holds shared locks on the files meanwhile: a layer that somebody writes
    to cannot be opened, and nobody can begin to. Raises NbdFailed with the
    program's own words, ImageUnfit, QemuMissing.
    """
    server = [program("qemu-nbd"), "--read-only", image_name(layers)]
    command = [*_ending_with_parent(), "/bin/sh", "-c", _HAND_OVER, str(os.getpid()), *server]
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
            process = _starter.submit(
                subprocess.Popen,
                command,
                stdin=listener.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=words,
                env=ENVIRONMENT,
                start_new_session=True,
            ).result()
    except OSError as error:
        client_end.close()
        raise NbdFailed(f"qemu-nbd cannot be started: {error}") from error
    return client_end, process


@cache
def _ending_with_parent() -> Sequence[str]:
    """How a program is run that ends with the thread that started it; nothing where that is not there."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    try:
        # Not every system's program of that name can do it.
        subprocess.run(
            [setpriv, *_END_WITH_PARENT, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LEAVE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return (setpriv, *_END_WITH_PARENT)


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: it reads, so there is nothing that it must finish. May be called twice."""
    if process.poll() is None:
        process.kill()
        process.wait(LEAVE_S)
