"""The site file: VMs and disks as TOML, and the default site that is used without one.

```toml
[behaviour]                     # optional: any field of simulator.behaviour.Behaviour
shuffle_fragments = true

[[vm]]
name = "pgtest1"
power_state = "poweredOn"       # optional
tools_running = true            # optional
change_tracking = false         # optional

[[vm.disk]]
capacity = "102 GiB"            # bytes, or a number with KiB, MiB, GiB, TiB
image = "disk0.raw"             # optional: raw image to start from, relative to this file
mode = "persistent"             # optional; independent_persistent, independent_nonpersistent
controller = 0                  # optional: number of the SCSI controller
unit = 0                        # optional: the next free one
key = 2000                      # optional: device key
uuid = "..."                    # optional

[[fault]]                       # optional: set from the start (`sendense-simulator fault kinds`)
name = "cbt-omit"
vm = "pgtest1"                  # optional: name of a VM, and disk = its position or device key
times = 1                       # optional: how often; else until it is cleared
fraction = 0.1                  # any option of the fault
```
"""

import tomllib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from simulator.behaviour import Behaviour
from simulator.disks.disk import DiskSpec
from simulator.faults.registry import BadFault
from simulator.site import SimulatedSite
from simulator.sizes import parse_size
from simulator.snapshots import POWER_STATES

_MODES = ("persistent", "independent_persistent", "independent_nonpersistent")
_VM_KEYS = {
    "name": str,
    "power_state": str,
    "tools_running": bool,
    "change_tracking": bool,
    "guest_id": str,
    "guest_full_name": str,
    "disk": list,
}
_DISK_KEYS = {
    "capacity": (str, int),
    "image": str,
    "mode": str,
    "controller": int,
    "unit": int,
    "key": int,
    "uuid": str,
    "multi_writer": bool,
    "physical_rdm": bool,
}


class SiteFileError(Exception):
    """The site file cannot be used; the text names the place."""


@dataclass(frozen=True)
class VmSpec:
    """A VM to make."""

    name: str
    disks: list[DiskSpec]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SiteSpec:
    """What a site starts with."""

    vms: list[VmSpec]
    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def build(self, site: SimulatedSite) -> None:
        """Make the VMs and set the faults.

        Raises SiteFileError for disks that make no sense, images that fail and bad faults.
        """
        for vm in self.vms:
            try:
                site.add_vm(vm.name, vm.disks, **vm.options)
            except (ValueError, OSError) as error:
                raise SiteFileError(f"VM {vm.name}: {error}") from error
        for fault in self.faults:
            try:
                site.faults.set(**fault)
            except (BadFault, TypeError) as error:
                raise SiteFileError(f"[[fault]]: {error}") from error


def default_site() -> SiteSpec:
    """Several VMs: two plain disks, a second controller, an independent disk, no disk at all."""
    gib = 1 << 30
    return SiteSpec(
        [
            VmSpec("pgtest1", [DiskSpec(102 * gib), DiskSpec(5 * gib)]),
            VmSpec("web-frontend", [DiskSpec(16 * gib), DiskSpec(8 * gib, controller=1)]),
            VmSpec(
                "Build Server (old)",
                [DiskSpec(20 * gib), DiskSpec(4 * gib, mode="independent_persistent")],
                {"tools_running": False},
            ),
            VmSpec("template-debian12", [DiskSpec(10 * gib)], {"power_state": "poweredOff"}),
            VmSpec("appliance-diskless", []),
        ]
    )


def load_site(path: Path) -> SiteSpec:
    """Read a site file. Raises SiteFileError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SiteFileError(f"{path}: no such site file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SiteFileError(f"{path}: cannot be read as TOML: {error}") from error
    try:
        _only(content, {"behaviour": dict, "vm": list, "fault": list}, "the file")
        behaviour = _behaviour(content.get("behaviour", {}))
        vms = [_vm(one, path.parent) for one in content.get("vm", [])]
        faults = [_fault(one) for one in content.get("fault", [])]
    except ValueError as error:
        raise SiteFileError(f"{path}: {error}") from error
    return SiteSpec(vms, behaviour, faults)


def _only(table: Any, known: dict[str, Any], where: str) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is not a table")
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
        kinds = known[key]
        is_flag = isinstance(value, bool)
        if not isinstance(value, kinds) or (is_flag and kinds is not bool):
            raise ValueError(f"{where}: {key} = {value!r} has the wrong type")


def _behaviour(table: Any) -> Behaviour:
    behaviour = Behaviour()
    known: dict[str, Any] = {}
    for one in fields(behaviour):
        current = getattr(behaviour, one.name)
        number = isinstance(current, int | float) and not isinstance(current, bool)
        known[one.name] = (int, float) if number else int if current is None else type(current)
    _only(table, known, "[behaviour]")
    for key, value in table.items():
        setattr(behaviour, key, value)
    return behaviour


def _fault(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError("[[fault]]: a fault needs a name")
    return table


def _vm(table: Any, folder: Path) -> VmSpec:
    _only(table, _VM_KEYS, "[[vm]]")
    name = table.get("name")
    if not name:
        raise ValueError("[[vm]]: a VM needs a name")
    options = {key: value for key, value in table.items() if key not in ("name", "disk")}
    if "change_tracking" in options:
        options["change_tracking_enabled"] = options.pop("change_tracking")
    if options.get("power_state", POWER_STATES[0]) not in POWER_STATES:
        raise ValueError(f"VM {name}: power_state is none of {', '.join(POWER_STATES)}")
    disks = [_disk(one, folder, name) for one in table.get("disk", [])]
    return VmSpec(name, disks, options)


def _disk(table: Any, folder: Path, vm: str) -> DiskSpec:
    where = f"VM {vm}: [[vm.disk]]"
    _only(table, _DISK_KEYS, where)
    if "capacity" not in table:
        raise ValueError(f"{where}: a disk needs a capacity")
    if table.get("mode", _MODES[0]) not in _MODES:
        raise ValueError(f"{where}: mode is none of {', '.join(_MODES)}")
    read: dict[str, Callable[[Any], Any]] = {
        "capacity": parse_size,
        "image": lambda name: folder / name,
        "uuid": lambda text: str(uuid.UUID(text)),
    }
    renamed = {"capacity": "capacity_bytes", "image": "content"}
    values = {
        renamed.get(key, key): read.get(key, lambda same: same)(value)
        for key, value in table.items()
    }
    return DiskSpec(**values)
