"""Virtual disks in a VM's or a snapshot's hardware list."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from agent.vsphere.api import vim
from agent.vsphere.models import FrozenDisk, VirtualDiskInfo


def disks_of(devices: Iterable[Any] | None) -> list[VirtualDiskInfo]:
    """The disks among `devices`, ordered by device key."""
    disks = [device for device in devices or [] if isinstance(device, vim.vm.device.VirtualDisk)]
    return [_disk_info(disk) for disk in sorted(disks, key=lambda disk: int(disk.key))]


def frozen_disks_of(devices: Iterable[Any] | None) -> list[FrozenDisk]:
    """The disks that a snapshot's devices froze, numbered in the order of their keys."""
    devices = list(devices or [])
    change_ids = {
        int(device.key): str(getattr(device.backing, "changeId", None) or "")
        for device in devices
        if isinstance(device, vim.vm.device.VirtualDisk)
    }
    protectable = [disk for disk in disks_of(devices) if not disk.not_protectable_reason]
    return [
        FrozenDisk(
            index=index,
            key=disk.key,
            uuid=disk.uuid,
            label=disk.label,
            capacity_bytes=disk.capacity_bytes,
            change_id=change_ids[disk.key],
            file_name=disk.file_name,
        )
        for index, disk in enumerate(protectable)
    ]


def _disk_info(disk: Any) -> VirtualDiskInfo:
    backing = disk.backing
    return VirtualDiskInfo(
        key=int(disk.key),
        uuid=str(getattr(backing, "uuid", None) or ""),
        label=str(disk.deviceInfo.label) if disk.deviceInfo else f"disk {disk.key}",
        capacity_bytes=int(disk.capacityInBytes or disk.capacityInKB * 1024),
        disk_mode=str(getattr(backing, "diskMode", None) or ""),
        file_name=str(getattr(backing, "fileName", None) or ""),
        not_protectable_reason=_not_protectable_reason(backing),
        refuses_snapshots=_is_shared(backing),
    )


def _not_protectable_reason(backing: Any) -> str:
    """Why a snapshot does not freeze a disk with this backing; empty when it does."""
    mode = str(getattr(backing, "diskMode", None) or "")
    if mode.startswith("independent"):
        return f"its mode is {mode}: snapshots leave independent disks out"
    if isinstance(backing, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo):
        if backing.compatibilityMode == "physicalMode":
            return "it is a raw device mapping in physical mode: snapshots leave it out"
    elif isinstance(
        backing,
        (
            vim.vm.device.VirtualDisk.RawDiskVer2BackingInfo,
            vim.vm.device.VirtualDisk.PartitionedRawDiskVer2BackingInfo,
        ),
    ):
        return "it is a raw device: snapshots leave it out"
    if _is_shared(backing):
        return "several VMs write to it (multi-writer): such disks refuse snapshots"
    if not getattr(backing, "fileName", None):
        return "it has no file that could be read"
    return ""


def _is_shared(backing: Any) -> bool:
    return getattr(backing, "sharing", None) == "sharingMultiWriter"


def unescaped(name: str | None) -> str:
    """vSphere writes %, / and \\ of names as %25, %2f and %5c."""
    return unquote(name or "")


def escaped(name: str) -> str:
    """The other way: how vSphere wants names."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")
