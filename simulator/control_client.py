"""Asking a running simulator through its control socket. Imports nothing heavy."""

import json
import socket
from pathlib import Path
from typing import Any, Final

LONGEST_LINE: Final = 16 << 20
_DEADLINE_S: Final = 300.0

Answer = dict[str, Any]


class ControlError(Exception):
    """The request cannot be done; the text says why."""


def ask(path: Path, request: Answer, timeout_s: float = _DEADLINE_S) -> Answer:
    """Send one request to a running simulator. Raises ControlError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as reader:
                line = reader.readline(LONGEST_LINE)
    except FileNotFoundError as error:
        raise ControlError(f"{path}: no control socket; is the simulator running?") from error
    except OSError as error:
        raise ControlError(f"{path}: the simulator does not answer: {error}") from error
    if not line:
        raise ControlError(f"{path}: the simulator closed the connection")
    answer: Answer = json.loads(line)
    if not answer.pop("ok"):
        raise ControlError(str(answer["error"]))
    return answer
