"""What a snapshot froze, and whether it is still so."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from agent.cancellation import Cancellation
from agent.errors import SnapshotVanished
from agent.vsphere.api import vim
from agent.vsphere.devices import disks_of, frozen_disks_of
from agent.vsphere.errors import SessionLost, VsphereError, VsphereFault, VsphereUnreachable
from agent.vsphere.models import FrozenDisk, JobSnapshot
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import snapshots_of

T = TypeVar("T")

LAST_LOOK_S = 300.0
"""A job that has read everything waits so long for an answer: management agents restart in minutes."""


def frozen_disks(session: VsphereSession, snapshot_moref: str) -> list[FrozenDisk]:
    """The disks that a snapshot froze. Raises VsphereErrors."""
    frozen = vim.vm.Snapshot(snapshot_moref, session.stub)
    values = session.run(
        "read the snapshot's disks",
        lambda: properties_of(session, frozen, ["config.hardware.device"]),
        repeatable=True,
    )
    return frozen_disks_of(values.get("config.hardware.device"))


def is_running_on(session: VsphereSession, vm_moref: str, file_name: str) -> bool:
    """Whether the VM is powered on and this file is a current link of its disks.

    False when vSphere does not tell. Raises the VsphereErrors of not reaching it.
    """
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        values = session.run(
            "tell what the VM runs on",
            lambda: properties_of(session, vm, ["config.hardware.device", "runtime.powerState"]),
            repeatable=True,
        )
    except VsphereFault:
        return False
    if values.get("runtime.powerState") != vim.VirtualMachine.PowerState.poweredOn:
        return False
    return file_name in [disk.file_name for disk in disks_of(values.get("config.hardware.device"))]


def require_frozen(session: VsphereSession, snapshot: JobSnapshot) -> None:
    """See that the snapshot stands and its disks are the files that they were.

    Without the snapshot the VM's writes merge into the very files that the job
    reads, and the host says nothing of it. Raises SnapshotVanished, VsphereErrors.
    """
    listed = snapshots_of(session, snapshot.vm_moref)
    if snapshot.moref not in [one.moref for one in listed]:
        raise _vanished(snapshot, "was removed")
    try:
        now = frozen_disks(session, snapshot.moref)
    except VsphereFault as error:
        if error.is_object_gone:
            raise _vanished(snapshot, "was removed") from error
        raise
    _require_same(snapshot, now)


def require_frozen_at_the_end(
    session: VsphereSession, snapshot: JobSnapshot, cancellation: Cancellation
) -> None:
    """The same, with more patience: hours of reading hang on the answer.

    Raises the error of `cancellation`, too.
    """
    patiently(lambda: require_frozen(session, snapshot), cancellation)


def patiently(look: Callable[[], T], cancellation: Cancellation) -> T:
    """What a look at vSphere finds, tried again for `LAST_LOOK_S` while vSphere has no answer.

    Raises what `look` raised last, the error of `cancellation`.
    """
    stop = threading.Event()
    attempts = Retrying(
        retry=retry_if_exception_type((VsphereUnreachable, SessionLost, VsphereFault)),
        stop=stop_after_delay(LAST_LOOK_S) | stop_when_event_set(stop),
        wait=wait_random_exponential(multiplier=0.5, max=15),
        sleep=sleep_using_event(stop),
        reraise=True,
    )
    try:
        with cancellation.calling(lambda _: stop.set()):
            found = attempts(look)
    except VsphereError:
        cancellation.check()  # it cut the wait short
        raise
    cancellation.check()
    return found


def _require_same(snapshot: JobSnapshot, now: Iterable[FrozenDisk]) -> None:
    by_key = {disk.key: disk for disk in now}
    for disk in snapshot.disks:
        found = by_key.get(disk.key)
        if found is None:
            raise _vanished(snapshot, f"no longer holds {disk.label}")
        if _identity(found) != _identity(disk):
            raise _vanished(
                snapshot,
                f"holds another file as {disk.label} than it froze: {_told(found)} "
                f"instead of {_told(disk)}",
            )


def _identity(disk: FrozenDisk) -> tuple[str, str, int]:
    return disk.file_name, disk.uuid, disk.capacity_bytes


def _told(disk: FrozenDisk) -> str:
    return f"{disk.file_name} (uuid {disk.uuid}, {disk.capacity_bytes} bytes)"


def _vanished(snapshot: JobSnapshot, what: str) -> SnapshotVanished:
    return SnapshotVanished(snapshot.name, snapshot.vm_moref, what)
