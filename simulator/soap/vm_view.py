"""A simulated VM as the vSphere API shows it."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

from simulator.disks.disk import SimulatedDisk
from simulator.disks.link import Link
from simulator.disks.sparse import stored_bytes
from simulator.disks.tracking import ChangeId
from simulator.machines import SimulatedVm
from simulator.snapshots import FrozenDisk, Snapshot
from simulator.soap.vmomi import Reference, vim

DATASTORE = "5f1e9a52-7c1d2e10-3b5a-000c29a1b2c3"
DATASTORE_NAME = "datastore1"

_CONTROLLER_KEY = 1000
_CONTROLLER_DISK_UNIT = 7
_MEMORY_MB = 4096
_CPUS = 2
_SNAPSHOT_DATA_BYTES = 32 << 10
_HARDWARE = "vmx-21"


def vm_reference(vm: SimulatedVm) -> Reference:
    return vim.VirtualMachine(vm.moid)


def datastore_reference() -> Reference:
    return vim.Datastore(DATASTORE)


def vm_properties(
    vm: SimulatedVm, recent_tasks: Callable[[], list[Reference]]
) -> dict[str, Callable[[], Any]]:
    """A function per property of vim.VirtualMachine."""
    return {
        "name": lambda: vm.name,
        "parent": lambda: vim.Folder("ha-folder-vm"),
        "overallStatus": lambda: "green",
        "configStatus": lambda: "green",
        "guestHeartbeatStatus": lambda: "green" if _guest_answers(vm) else "gray",
        "effectiveRole": lambda: [-1],
        "capability": _capability,
        "recentTask": recent_tasks,
        "config": lambda: _config(vm),
        "layoutEx": lambda: _layout(vm),
        "resourcePool": lambda: vim.ResourcePool("ha-root-pool"),
        "runtime": lambda: _runtime(vm),
        "guest": lambda: _guest(vm),
        "summary": lambda: _summary(vm),
        "datastore": lambda: [datastore_reference()],
        "network": list,
        "snapshot": lambda: _snapshot_info(vm),
        "rootSnapshot": lambda: [vim.vm.Snapshot(one.moid) for one in vm.root_snapshots],
        "environmentBrowser": lambda: vim.EnvironmentBrowser(f"{vm.moid}-browser"),
    }


def snapshot_properties(vm: SimulatedVm, snapshot: Snapshot) -> dict[str, Callable[[], Any]]:
    """A function per property of vim.vm.Snapshot."""
    return {
        "config": lambda: _config(vm, snapshot),
        "childSnapshot": lambda: [vim.vm.Snapshot(one.moid) for one in snapshot.children],
        "vm": lambda: vm_reference(vm),
    }


def _guest_answers(vm: SimulatedVm) -> bool:
    return vm.tools_running and vm.power_state == "poweredOn"


def _config(vm: SimulatedVm, snapshot: Snapshot | None = None) -> Any:
    with vm.lock:
        tracking = snapshot.change_tracking_enabled if snapshot else vm.change_tracking_enabled
        return vim.vm.ConfigInfo(
            changeVersion=vm.changed_at.isoformat(),
            modified=vm.changed_at,
            name=snapshot.vm_name if snapshot else vm.name,
            guestFullName=vm.guest_full_name,
            version=_HARDWARE,
            uuid=vm.uuid,
            createDate=vm.created_at,
            instanceUuid=vm.instance_uuid,
            template=False,
            guestId=vm.guest_id,
            alternateGuestName="",
            annotation="",
            files=vim.vm.FileInfo(
                vmPathName=vm.vmx_path,
                snapshotDirectory=_folder(vm),
                logDirectory=_folder(vm),
            ),
            tools=vim.vm.ToolsConfigInfo(toolsVersion=12389),
            flags=vim.vm.FlagInfo(),
            defaultPowerOps=vim.vm.DefaultPowerOpInfo(powerOffType="soft"),
            hardware=vim.vm.VirtualHardware(
                numCPU=_CPUS,
                numCoresPerSocket=1,
                memoryMB=_MEMORY_MB,
                device=_devices(vm, snapshot),
            ),
            changeTrackingEnabled=tracking,
            firmware="efi",
        )


def _folder(vm: SimulatedVm) -> str:
    return vm.vmx_path.rsplit("/", 1)[0] + "/"


def _devices(vm: SimulatedVm, snapshot: Snapshot | None) -> list[Any]:
    disks = _live_disks(vm) if snapshot is None else _frozen_disks(snapshot)
    return [_ide_controller(), *_scsi_controllers(vm, disks), *disks]


def _live_disks(vm: SimulatedVm) -> list[Any]:
    return [
        _disk(disk, disk.current, disk.capacity_bytes, disk.tracking.now if disk.tracking else None)
        for disk in vm.disks
    ]


def _frozen_disks(snapshot: Snapshot) -> list[Any]:
    frozen = [
        _disk(one, snapshot.links[one.key], one.capacity_bytes, one.change_id)
        for one in snapshot.disks
    ]
    others = [_disk(one, one.disk.current, one.capacity_bytes, None) for one in snapshot.others]
    return sorted([*frozen, *others], key=lambda device: int(device.key))


def _ide_controller() -> Any:
    return vim.vm.device.VirtualIDEController(
        key=200,
        deviceInfo=vim.Description(label="IDE 0", summary="IDE 0"),
        busNumber=0,
    )


def _scsi_controllers(vm: SimulatedVm, disks: list[Any]) -> list[Any]:
    return [
        vim.vm.device.ParaVirtualSCSIController(
            key=_CONTROLLER_KEY + number,
            deviceInfo=vim.Description(
                label=f"SCSI controller {number}", summary="VMware paravirtual SCSI"
            ),
            controllerKey=100,
            unitNumber=3 + number,
            busNumber=number,
            device=[
                int(disk.key) for disk in disks if disk.controllerKey == _CONTROLLER_KEY + number
            ],
            hotAddRemove=True,
            sharedBus="noSharing",
            scsiCtlrUnitNumber=_CONTROLLER_DISK_UNIT,
        )
        for number in vm.controllers
    ]


def _disk(
    place: SimulatedDisk | FrozenDisk, link: Link, capacity_bytes: int, change_id: ChangeId | None
) -> Any:
    disk = place.disk if isinstance(place, FrozenDisk) else place
    return vim.vm.device.VirtualDisk(
        key=place.key,
        deviceInfo=vim.Description(label=place.label, summary=f"{capacity_bytes // 1024:,} KB"),
        backing=_backing(disk, link, change_id),
        controllerKey=_CONTROLLER_KEY + place.controller,
        unitNumber=place.unit,
        capacityInKB=capacity_bytes // 1024,
        capacityInBytes=capacity_bytes,
        diskObjectId=f"1-{place.key}",
    )


def _backing(disk: SimulatedDisk, link: Link, change_id: ChangeId | None) -> Any:
    if disk.physical_rdm:
        return vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo(
            fileName=link.file_name,
            datastore=datastore_reference(),
            lunUuid=disk.uuid.replace("-", ""),
            deviceName=f"vml.{disk.uuid.replace('-', '')}",
            compatibilityMode="physicalMode",
            uuid=disk.uuid,
        )
    return vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=link.file_name,
        datastore=datastore_reference(),
        diskMode=disk.mode,
        split=False,
        writeThrough=False,
        thinProvisioned=True,
        uuid=disk.uuid,
        contentId=f"{crc32(link.file_name.encode()):08x}",
        changeId=str(change_id) if change_id else None,
        parent=_backing(disk, link.parent, None) if link.parent else None,
        deltaDiskFormat="seSparseFormat" if link.parent else None,
        digestEnabled=False,
        sharing="sharingMultiWriter" if disk.multi_writer else "sharingNone",
    )


def _layout(vm: SimulatedVm) -> Any:
    """vim.vm.FileLayoutEx: the files of every link, and the chains of the VM and its snapshots."""
    layout = _Layout()
    with vm.lock:
        disks = [layout.chain(disk.key, disk.current) for disk in vm.disks]
        snapshots = [
            vim.vm.FileLayoutEx.SnapshotLayout(
                key=vim.vm.Snapshot(one.moid),
                dataKey=layout.file(
                    vm.vmx_path.replace(".vmx", f"-Snapshot{one.number}.vmsn"),
                    "snapshotData",
                    _SNAPSHOT_DATA_BYTES,
                ),
                memoryKey=-1,
                disk=[layout.chain(key, link) for key, link in one.links.items()],
            )
            for one in vm.snapshots
        ]
        layout.file(vm.vmx_path, "config", 4096)
        return vim.vm.FileLayoutEx(
            file=layout.files, disk=disks, snapshot=snapshots, timestamp=vm.changed_at
        )


class _Layout:
    """Collects files; each link's two stand there once, however many chains it is in."""

    def __init__(self) -> None:
        self.files: list[Any] = []
        self._of_links: dict[str, list[int]] = {}

    def file(self, name: str, kind: str, size: int) -> int:
        """The key of a new file."""
        key = len(self.files)
        self.files.append(_file(key, name, kind, size))
        return key

    def chain(self, key: int, top: Link) -> Any:
        """vim.vm.FileLayoutEx.DiskLayout of a disk whose newest link is `top`."""
        units: list[Any] = []
        link: Link | None = top
        while link is not None:
            units.insert(0, vim.vm.FileLayoutEx.DiskUnit(fileKey=self._keys(link)))
            link = link.parent
        return vim.vm.FileLayoutEx.DiskLayout(key=key, chain=units)

    def _keys(self, link: Link) -> list[int]:
        name = link.file_name
        if name not in self._of_links:
            extent = name.replace(".vmdk", "-flat.vmdk")
            self._of_links[name] = [
                self.file(name, "diskDescriptor", 512),
                self.file(extent, "diskExtent", stored_bytes(link.path)),
            ]
        return self._of_links[name]


def _file(key: int, name: str, kind: str, size: int) -> Any:
    return vim.vm.FileLayoutEx.FileInfo(
        key=key, name=name, type=kind, size=size, uniqueSize=size, accessible=True
    )


def _runtime(vm: SimulatedVm) -> Any:
    return vim.vm.RuntimeInfo(
        host=vim.HostSystem("ha-host"),
        connectionState="connected",
        powerState=vm.power_state,
        faultToleranceState="notConfigured",
        toolsInstallerMounted=False,
        bootTime=vm.created_at if vm.power_state == "poweredOn" else None,
        numMksConnections=0,
        recordReplayState="inactive",
        onlineStandby=False,
        maxCpuUsage=4800,
        maxMemoryUsage=_MEMORY_MB,
        consolidationNeeded=vm.consolidation_needed,
    )


def _guest(vm: SimulatedVm) -> Any:
    answers = _guest_answers(vm)
    return vim.vm.GuestInfo(
        toolsStatus="toolsOk" if answers else "toolsNotRunning",
        toolsRunningStatus="guestToolsRunning" if answers else "guestToolsNotRunning",
        toolsVersionStatus2="guestToolsUnmanaged",
        guestId=vm.guest_id if answers else None,
        guestFullName=vm.guest_full_name if answers else None,
        hostName=vm.name.lower() if answers else None,
        guestState="running" if answers else "notRunning",
    )


def _summary(vm: SimulatedVm) -> Any:
    return vim.vm.Summary(
        vm=vm_reference(vm),
        runtime=_runtime(vm),
        guest=vim.vm.Summary.GuestSummary(
            guestId=vm.guest_id,
            guestFullName=vm.guest_full_name,
            toolsStatus="toolsOk" if _guest_answers(vm) else "toolsNotRunning",
            hostName=vm.name.lower() if _guest_answers(vm) else None,
        ),
        config=vim.vm.Summary.ConfigSummary(
            name=vm.name,
            template=False,
            vmPathName=vm.vmx_path,
            memorySizeMB=_MEMORY_MB,
            numCpu=_CPUS,
            numEthernetCards=0,
            numVirtualDisks=len(vm.disks),
            uuid=vm.uuid,
            instanceUuid=vm.instance_uuid,
            guestId=vm.guest_id,
            guestFullName=vm.guest_full_name,
            annotation="",
            hwVersion=_HARDWARE,
        ),
        storage=vim.vm.Summary.StorageSummary(
            committed=sum(stored_bytes(link.path) for disk in vm.disks for link in vm.links(disk)),
            uncommitted=0,
            unshared=0,
            timestamp=vm.changed_at,
        ),
        quickStats=vim.vm.Summary.QuickStats(guestHeartbeatStatus="green"),
        overallStatus="green",
    )


def _snapshot_info(vm: SimulatedVm) -> Any:
    with vm.lock:
        if not vm.root_snapshots:
            return None
        current = vm.current_snapshot
        return vim.vm.SnapshotInfo(
            currentSnapshot=vim.vm.Snapshot(current.moid) if current else None,
            rootSnapshotList=[_tree(vm, one) for one in vm.root_snapshots],
        )


def _tree(vm: SimulatedVm, snapshot: Snapshot) -> Any:
    return vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot(snapshot.moid),
        vm=vm_reference(vm),
        name=snapshot.name,
        description=snapshot.description,
        id=snapshot.number,
        createTime=snapshot.created,
        state=snapshot.power_state,
        quiesced=snapshot.quiesced,
        childSnapshotList=[_tree(vm, one) for one in snapshot.children],
        replaySupported=False,
    )


def _capability() -> Any:
    yes = (
        "snapshotOperationsSupported",
        "multipleSnapshotsSupported",
        "poweredOffSnapshotsSupported",
        "memorySnapshotsSupported",
        "revertToSnapshotSupported",
        "quiescedSnapshotsSupported",
        "changeTrackingSupported",
        "diskSharesSupported",
        "bootOptionsSupported",
        "seSparseDiskSupported",
    )
    return vim.vm.Capability(**dict.fromkeys(yes, True))
