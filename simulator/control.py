"""The control socket: what the "guest" and the administrator do, asked for by a command.

One JSON object per line, one answer line each: {"ok": true, ...} or {"ok": false, "error": text}.
"""

import base64
import contextlib
import json
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from simulator.control_client import LONGEST_LINE, Answer, ControlError
from simulator.disks.disk import SimulatedDisk
from simulator.disks.sparse import stored_bytes
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from simulator.snapshots import OperationRefused, Snapshot

LONGEST_CONTENT: Final = 4 << 20
_DEADLINE_S: Final = 300.0
_SHUTDOWN_S: Final = 10.0


class Control:
    """What the commands do, on a site."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site
        self._commands: dict[str, Callable[[Answer], Answer]] = {
            "vms": self._vms,
            "snapshots": self._snapshots,
            "write": self._write,
            "zero": lambda request: self._change(request, SimulatedDisk.zero),
            "trim": lambda request: self._change(request, SimulatedDisk.trim),
            "grow": self._grow,
            "content": self._content,
            "power": self._power,
            "revert": self._revert,
            "reset-tracking": self._reset_tracking,
            "snapshot": self._snapshot,
            "remove-snapshot": self._remove_snapshot,
            "expire-sessions": lambda _: {"ended": self._site.expire_sessions()},
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

    def _vm(self, request: Answer) -> SimulatedVm:
        return self._site.find_vm(str(request["vm"]))

    def _disk(self, request: Answer) -> SimulatedDisk:
        return self._vm(request).find_disk(int(request["disk"]))

    def _find_snapshot(self, vm: SimulatedVm, name: str) -> Snapshot:
        found = [one for one in vm.snapshots if name in (one.name, one.moid)]
        if len(found) != 1:
            names = ", ".join(one.name for one in vm.snapshots) or "none"
            raise ControlError(
                f"{'no' if not found else 'more than one'} snapshot {name!r} "
                f"of {vm.name}; there are: {names}"
            )
        return found[0]

    def _vms(self, _request: Answer) -> Answer:
        return {"vms": [_vm_facts(vm) for vm in self._site.vms]}

    def _snapshots(self, request: Answer) -> Answer:
        vms = [self._vm(request)] if request.get("vm") else self._site.vms
        return {
            "snapshots": [
                {
                    "vm": vm.name,
                    "name": one.name,
                    "moid": one.moid,
                    "parent": one.parent.name if one.parent else None,
                    "created": one.created.isoformat(),
                    "quiesced": one.quiesced,
                    "disks": {
                        str(disk.key): {
                            "file": one.links[disk.key].file_name,
                            "change_id": str(disk.change_id) if disk.change_id else None,
                        }
                        for disk in one.disks
                    },
                }
                for vm in vms
                for one in vm.snapshots
            ]
        }

    def _write(self, request: Answer) -> Answer:
        disk = self._disk(request)
        offset = int(request["offset"])
        if "file" in request:
            data = Path(request["file"]).read_bytes()
        else:
            data = base64.b64decode(str(request["data"]), validate=True)
        disk.write(offset, data)
        return {"bytes": len(data)}

    def _change(self, request: Answer, change: Callable[[SimulatedDisk, int, int], None]) -> Answer:
        offset, length = int(request["offset"]), int(request["length"])
        change(self._disk(request), offset, length)
        return {"bytes": length}

    def _grow(self, request: Answer) -> Answer:
        disk = self._disk(request)
        disk.grow(int(request["capacity"]))
        return {"capacity": disk.capacity_bytes}

    def _content(self, request: Answer) -> Answer:
        length = int(request["length"])
        if length > LONGEST_CONTENT:
            raise ControlError(f"at most {LONGEST_CONTENT} bytes at a time")
        data = self._disk(request).read(int(request["offset"]), length)
        return {"data": base64.b64encode(data).decode("ascii")}

    def _power(self, request: Answer) -> Answer:
        vm = self._vm(request)
        vm.power(request["state"])
        return {"power_state": vm.power_state}

    def _revert(self, request: Answer) -> Answer:
        vm = self._vm(request)
        snapshot = self._find_snapshot(vm, str(request["snapshot"]))
        vm.revert(snapshot, keeps_tracking=self._site.behaviour.revert_keeps_tracking)
        return {"snapshot": snapshot.name}

    def _reset_tracking(self, request: Answer) -> Answer:
        self._vm(request).reset_tracking()
        return {}

    def _snapshot(self, request: Answer) -> Answer:
        made = self._vm(request).create_snapshot(str(request["name"]), "made by hand")
        return {"snapshot": made.name, "moid": made.moid}

    def _remove_snapshot(self, request: Answer) -> Answer:
        vm = self._vm(request)
        vm.remove_snapshot(self._find_snapshot(vm, str(request["snapshot"])))
        return {}


def _vm_facts(vm: SimulatedVm) -> Answer:
    return {
        "name": vm.name,
        "moid": vm.moid,
        "instance_uuid": vm.instance_uuid,
        "power_state": vm.power_state,
        "change_tracking_enabled": vm.change_tracking_enabled,
        "snapshots": len(vm.snapshots),
        "disks": [
            {
                "key": disk.key,
                "label": disk.label,
                "uuid": disk.uuid,
                "capacity_bytes": disk.capacity_bytes,
                "stored_bytes": sum(stored_bytes(link.path) for link in vm.links(disk)),
                "mode": disk.mode,
                "file": disk.current.file_name,
                "change_id": str(disk.tracking.now) if disk.tracking else None,
            }
            for disk in vm.disks
        ],
    }


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
