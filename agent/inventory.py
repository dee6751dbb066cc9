"""Reports of the site's VMs to the hub: at once, whenever something changed, and when asked."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from agent.vsphere.errors import LoginFailed
from agent.vsphere.models import SnapshotInfo, VirtualDiskInfo, VirtualMachineInfo
from agent.vsphere.site import VsphereSite
from agent.vsphere.snapshot_tree import is_sendense
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import inventory_pb2
from shared.errors import SendenseError

# vSphere locks an account after a few wrong passwords within 15 minutes.
LOGIN_RETRY_S: Final = 1200.0
LONGEST_RETRY_S: Final = 600.0

Send = Callable[[pb.SessionRequest], None]

_log = structlog.get_logger(__name__)


class InventoryReporter:
    """One thread that reads the inventory while a session stands. Thread-safe."""

    def __init__(self, site: VsphereSite, *, interval_s: float) -> None:
        self._site = site
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._send: Send | None = None
        self._due = False
        self._closed = False
        self._problem = ""
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="inventory", daemon=True)
        self._thread.start()

    def attach(self, send: Send) -> None:
        """A session stands: report everything to it."""
        self._set(send, due=True)

    def detach(self) -> None:
        """The session is gone: stop reading."""
        self._set(None, due=False)

    def refresh(self) -> None:
        """Read and report now, changed or not."""
        self._set(self._send, due=True)

    def close(self, timeout_s: float) -> None:
        """End the thread; one that waits for vSphere may outlive the time-out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _set(self, send: Send | None, *, due: bool) -> None:
        with self._changed:
            self._send = send
            self._due = due
            self._changed.notify_all()

    def _run(self) -> None:
        reported: pb.AgentInventory | None = None
        owed = False  # a report that is due even if nothing changed; it survives a failed read
        while True:
            with self._changed:
                # No session: nothing to do until one is attached.
                self._changed.wait_for(
                    lambda: self._closed or self._due, self._pause_s() if self._send else None
                )
                if self._closed:
                    return
                send, owed, self._due = self._send, owed or self._due, False
            if send is None:
                continue
            inventory = self._read()
            if inventory is not None and (owed or inventory != reported):
                send(pb.SessionRequest(inventory=inventory))
                reported, owed = inventory, False

    def _pause_s(self) -> float:
        if not self._failures:
            return self._interval_s
        return min(LONGEST_RETRY_S, 2.0**self._failures)

    def _read(self) -> pb.AgentInventory | None:
        """The inventory, or None; a problem is logged when it is a new one."""
        try:
            inventory = inventory_message(self._site.virtual_machines())
        except Exception as error:  # noqa: BLE001 - logged; the next round may succeed
            self._failures = min(self._failures + 1, 16)
            if isinstance(error, LoginFailed):
                self._wait_out(LOGIN_RETRY_S)
            if self._problem != str(error):
                self._problem = str(error)
                _log.error(
                    "inventory_not_read",
                    error=self._problem,
                    exc_info=not isinstance(error, SendenseError),
                )
            return None
        if self._problem:
            _log.info("inventory_read_again")
        self._problem, self._failures = "", 0
        return inventory

    def _wait_out(self, pause_s: float) -> None:
        """Not even RefreshInventory shortens this."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, pause_s)


def inventory_message(machines: list[VirtualMachineInfo]) -> pb.AgentInventory:
    """The VMs as a message, in a stable order, so that equal inventories compare equal."""
    return pb.AgentInventory(
        virtual_machines=[
            inventory_pb2.VirtualMachine(
                name=machine.name,
                vmware_vm_id=machine.moref,
                instance_uuid=machine.instance_uuid,
                power_state=machine.power_state,
                change_tracking_enabled=machine.change_tracking_enabled,
                snapshot_count=len(machine.snapshots),
                guest_full_name=machine.guest_full_name,
                disks=[_disk(disk) for disk in machine.disks],
                snapshots=[_snapshot(snapshot) for snapshot in machine.snapshots],
                consolidation_needed=machine.consolidation_needed,
            )
            for machine in sorted(machines, key=lambda m: (m.name, m.moref))
        ]
    )


def _snapshot(snapshot: SnapshotInfo) -> inventory_pb2.VmSnapshot:
    message = inventory_pb2.VmSnapshot(
        name=snapshot.name,
        vmware_snapshot_id=snapshot.moref,
        is_sendense=is_sendense(snapshot),
    )
    message.created_at.FromDatetime(snapshot.created_at)
    return message


def _disk(disk: VirtualDiskInfo) -> inventory_pb2.VirtualDisk:
    return inventory_pb2.VirtualDisk(
        vmware_disk_key=disk.key,
        disk_uuid=disk.uuid,
        label=disk.label,
        capacity_bytes=disk.capacity_bytes,
        disk_mode=disk.disk_mode,
        file_name=disk.file_name,
        not_protectable_reason=disk.not_protectable_reason,
    )
