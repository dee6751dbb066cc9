"""Control commands: what is there, and what guests do to their disks."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

from simulator.control_client import Answer, ControlError
from simulator.disks.disk import SimulatedDisk
from simulator.disks.sparse import stored_bytes
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from simulator.snapshots import Snapshot

LONGEST_CONTENT: Final = 4 << 20


class GuestCommands:
    """Listings, reads and writes."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site

    def commands(self) -> dict[str, Callable[[Answer], Answer]]:
        """By name."""
        return {
            "vms": self._vms,
            "snapshots": self._snapshots,
            "write": self._write,
            "zero": lambda request: self._change(request, SimulatedDisk.zero),
            "trim": lambda request: self._change(request, SimulatedDisk.trim),
            "content": self._content,
        }

    def _disk(self, request: Answer) -> SimulatedDisk:
        return self._site.find_vm(str(request["vm"])).find_disk(int(request["disk"]))

    def _vms(self, _request: Answer) -> Answer:
        return {"vms": [_vm_facts(vm) for vm in self._site.vms]}

    def _snapshots(self, request: Answer) -> Answer:
        vms = [self._site.find_vm(str(request["vm"]))] if request.get("vm") else self._site.vms
        return {"snapshots": [_snapshot_facts(vm, one) for vm in vms for one in vm.snapshots]}

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

    def _content(self, request: Answer) -> Answer:
        length = int(request["length"])
        if length > LONGEST_CONTENT:
            raise ControlError(f"at most {LONGEST_CONTENT} bytes at a time")
        data = self._disk(request).read(int(request["offset"]), length)
        return {"data": base64.b64encode(data).decode("ascii")}


def _vm_facts(vm: SimulatedVm) -> Answer:
    return {
        "name": vm.name,
        "moid": vm.moid,
        "instance_uuid": vm.instance_uuid,
        "power_state": vm.power_state,
        "change_tracking_enabled": vm.change_tracking_enabled,
        "consolidation_needed": vm.consolidation_needed,
        "snapshots": len(vm.snapshots),
        "disks": [
            {
                "key": disk.key,
                "label": disk.label,
                "uuid": disk.uuid,
                "controller": disk.controller,
                "unit": disk.unit,
                "capacity_bytes": disk.capacity_bytes,
                "stored_bytes": sum(stored_bytes(link.path) for link in vm.links(disk)),
                "mode": disk.mode,
                "file": disk.current.file_name,
                "change_id": str(disk.tracking.now) if disk.tracking else None,
            }
            for disk in vm.disks
        ],
    }


def _snapshot_facts(vm: SimulatedVm, snapshot: Snapshot) -> Answer:
    return {
        "vm": vm.name,
        "name": snapshot.name,
        "moid": snapshot.moid,
        "parent": snapshot.parent.name if snapshot.parent else None,
        "created": snapshot.created.isoformat(),
        "quiesced": snapshot.quiesced,
        "disks": {
            str(disk.key): {
                "file": snapshot.links[disk.key].file_name,
                "change_id": str(disk.change_id) if disk.change_id else None,
            }
            for disk in snapshot.disks
        },
    }
