"""Control commands: what an administrator does to VMs, disks, snapshots and the host."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from simulator.control_client import Answer, ControlError
from simulator.disks.disk import DiskSpec, SimulatedDisk
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from simulator.snapshots import Snapshot


class AdminCommands:
    """Changes that are no guest's."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site

    def commands(self) -> dict[str, Callable[[Answer], Answer]]:
        """By name."""
        return {
            "add-disk": self._add_disk,
            "remove-disk": self._remove_disk,
            "move-disk": self._move_disk,
            "reorder-disks": self._reorder_disks,
            "grow": self._grow,
            "power": self._power,
            "power-loss": self._power_loss,
            "reset-tracking": self._reset_tracking,
            "snapshot": self._snapshot,
            "remove-snapshot": self._remove_snapshot,
            "revert": self._revert,
            "expire-sessions": lambda _: {"ended": self._site.expire_sessions()},
            "change-certificate": self._change_certificate,
        }

    def _vm(self, request: Answer) -> SimulatedVm:
        return self._site.find_vm(str(request["vm"]))

    def _disk(self, request: Answer) -> tuple[SimulatedVm, SimulatedDisk]:
        vm = self._vm(request)
        return vm, vm.find_disk(int(request["disk"]))

    def _find_snapshot(self, vm: SimulatedVm, name: str) -> Snapshot:
        found = [one for one in vm.snapshots if name in (one.name, one.moid)]
        if len(found) != 1:
            names = ", ".join(one.name for one in vm.snapshots) or "none"
            raise ControlError(
                f"{'no' if not found else 'more than one'} snapshot {name!r} "
                f"of {vm.name}; there are: {names}"
            )
        return found[0]

    # Disks.

    def _add_disk(self, request: Answer) -> Answer:
        disk = self._vm(request).add_disk(
            DiskSpec(
                int(request["capacity"]),
                content=Path(request["file"]) if request.get("file") else None,
                controller=int(request.get("controller") or 0),
                unit=_optional_number(request, "unit"),
                key=_optional_number(request, "key"),
                uuid=str(uuid.UUID(request["uuid"])) if request.get("uuid") else str(uuid.uuid4()),
            )
        )
        return _place(disk)

    def _remove_disk(self, request: Answer) -> Answer:
        vm, disk = self._disk(request)
        vm.remove_disk(disk)
        return _place(disk)

    def _move_disk(self, request: Answer) -> Answer:
        vm, disk = self._disk(request)
        vm.move_disk(disk, int(request["controller"]), _optional_number(request, "unit"))
        return _place(disk)

    def _reorder_disks(self, request: Answer) -> Answer:
        vm = self._vm(request)
        vm.reorder_disks([vm.find_disk(int(number)) for number in request["order"]])
        return {"disks": [_place(disk) for disk in vm.disks]}

    def _grow(self, request: Answer) -> Answer:
        _, disk = self._disk(request)
        disk.grow(int(request["capacity"]))
        return {"capacity": disk.capacity_bytes}

    # Power, tracking, snapshots, the host.

    def _power(self, request: Answer) -> Answer:
        vm = self._vm(request)
        vm.power(request["state"])
        return {"power_state": vm.power_state}

    def _power_loss(self, request: Answer) -> Answer:
        self._vm(request).power_loss()
        return {}

    def _reset_tracking(self, request: Answer) -> Answer:
        self._vm(request).reset_tracking()
        return {}

    def _snapshot(self, request: Answer) -> Answer:
        made = self._vm(request).create_snapshot(
            str(request["name"]),
            "made by hand",
            age=timedelta(hours=float(request.get("age_h") or 0)),
        )
        return {"snapshot": made.name, "moid": made.moid}

    def _remove_snapshot(self, request: Answer) -> Answer:
        vm = self._vm(request)
        vm.remove_snapshot(self._find_snapshot(vm, str(request["snapshot"])))
        return {}

    def _revert(self, request: Answer) -> Answer:
        vm = self._vm(request)
        snapshot = self._find_snapshot(vm, str(request["snapshot"]))
        vm.revert(snapshot, tracking=self._site.behaviour.reverted_tracking)
        return {"snapshot": snapshot.name}

    def _change_certificate(self, request: Answer) -> Answer:
        return {"certificate_sha256": self._site.change_certificate(request.get("of") or "host")}


def _optional_number(request: Answer, name: str) -> int | None:
    value = request.get(name)
    return None if value is None else int(value)


def _place(disk: SimulatedDisk) -> Answer:
    return {
        "key": disk.key,
        "label": disk.label,
        "uuid": disk.uuid,
        "controller": disk.controller,
        "unit": disk.unit,
    }
