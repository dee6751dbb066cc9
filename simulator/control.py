"""The control socket: what guests, administrators and faults are to do, asked for by a command.

One JSON object per line, one answer line each: {"ok": true, ...} or {"ok": false, "error": text}.
"""

import contextlib
import json
import socketserver
import threading
from pathlib import Path
from typing import Any, Final

from simulator.control_admin import AdminCommands
from simulator.control_client import LONGEST_LINE, Answer, ControlError
from simulator.control_faults import FaultCommands
from simulator.control_guest import GuestCommands
from simulator.site import SimulatedSite
from simulator.snapshots import OperationRefused

_DEADLINE_S: Final = 300.0
_SHUTDOWN_S: Final = 10.0


class Control:
    """What the commands do, on a site."""

    def __init__(self, site: SimulatedSite) -> None:
        self._commands = {
            **GuestCommands(site).commands(),
            **AdminCommands(site).commands(),
            **FaultCommands(site.faults).commands(),
        }

    def handle(self, line: bytes) -> Answer:
        """The answer to one request line; never raises for what a client can get wrong."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ControlError("a request is a JSON object")
            command = self._commands.get(str(request.get("command")))
            if command is None:
                raise ControlError(
                    f"unknown command {request.get('command')!r}; "
                    f"known are {', '.join(self._commands)}"
                )
            return {"ok": True, **command(request)}
        except (ControlError, OperationRefused, ValueError, OSError) as error:
            return {"ok": False, "error": str(error)}
        except (KeyError, TypeError) as error:
            return {"ok": False, "error": f"missing or wrong field: {error}"}


class ControlServer:
    """Serves a control socket, which only the owner may use, in threads."""

    def __init__(self, path: Path, site: SimulatedSite) -> None:
        self.path = path
        control = Control(site)

        class Handler(socketserver.StreamRequestHandler):
            timeout = _DEADLINE_S

            def handle(self) -> None:
                while line := self.rfile.readline(LONGEST_LINE):
                    answer = control.handle(line)
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 32

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no news."""

        with contextlib.suppress(FileNotFoundError):
            if path.is_socket():
                path.unlink()  # of an earlier run
        self._server = Server(str(path), Handler)
        path.chmod(0o600)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="control",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and remove the socket."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_SHUTDOWN_S)
        self._server.server_close()
        self.path.unlink(missing_ok=True)
