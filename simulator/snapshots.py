"""Snapshots: the nodes of a VM's snapshot tree, and merging links that none of them needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from simulator.disks.disk import SimulatedDisk
from simulator.disks.link import Link
from simulator.disks.tracking import ChangeId, ChangeTracking

PowerState = Literal["poweredOn", "poweredOff", "suspended"]
POWER_STATES: tuple[PowerState, ...] = ("poweredOn", "poweredOff", "suspended")


class OperationRefused(Exception):
    """The host refuses an operation. `kind` is the name of the vSphere fault."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem


@dataclass(frozen=True)
class FrozenDisk:
    """A disk, in the place that it had when a snapshot was taken.

    The link is looked up by the snapshot: it may be merged. Independent disks have none.
    """

    disk: SimulatedDisk
    key: int
    controller: int
    unit: int
    label: str
    capacity_bytes: int
    tracking: ChangeTracking | None = None
    change_id: ChangeId | None = None

    @classmethod
    def of(
        cls,
        disk: SimulatedDisk,
        tracking: ChangeTracking | None = None,
        change_id: ChangeId | None = None,
    ) -> "FrozenDisk":
        """A disk as it is now."""
        return cls(
            disk,
            disk.key,
            disk.controller,
            disk.unit,
            disk.label,
            disk.capacity_bytes,
            tracking,
            change_id,
        )


@dataclass
class Snapshot:
    """A node of a VM's snapshot tree."""

    moid: str
    number: int
    name: str
    description: str
    created: datetime
    quiesced: bool
    vm_name: str
    power_state: PowerState  # after a revert; without memory: poweredOff
    change_tracking_enabled: bool
    parent: "Snapshot | None"
    disks: list[FrozenDisk]
    links: dict[int, Link]  # by the device key that the disk had
    others: list[FrozenDisk]  # independent disks: listed, not frozen
    children: list["Snapshot"] = field(default_factory=list)

    def with_descendants(self) -> Iterator["Snapshot"]:
        """This snapshot and everything below it."""
        yield self
        for child in self.children:
            yield from child.with_descendants()


def freeze_disks(
    disks: list[SimulatedDisk], number: int, without_change_ids: frozenset[int]
) -> tuple[list[FrozenDisk], dict[int, Link]]:
    """(disks, links by device key) of a snapshot that is taken now; the guest goes on in `number`."""
    frozen: list[FrozenDisk] = []
    links: dict[int, Link] = {}
    for disk in disks:
        links[disk.key], change_id = disk.freeze(number)
        if disk.key in without_change_ids:
            change_id = None
        frozen.append(FrozenDisk.of(disk, disk.tracking, change_id))
    return frozen, links


def consolidate(
    disk: SimulatedDisk, links: list[Link], snapshots: list[Snapshot], *, in_use: bool
) -> None:
    """Merge a disk's links that neither the guest nor a snapshot needs; `links` is base first.

    A merged link takes in its only child and stands for it from then on; one without
    children is removed; a shared base of two branches stays. A disk that is not `in_use`
    keeps what snapshots need alone.
    """
    users = [
        (snapshot, frozen.key)
        for snapshot in snapshots
        for frozen in snapshot.disks
        if frozen.disk is disk
    ]
    for link in reversed(list(links)):
        if in_use and link is disk.current:
            continue
        if any(snapshot.links[key] is link for snapshot, key in users):
            continue
        children = [one for one in links if one.parent is link]
        if len(children) > 1:
            continue
        if not children:
            links.remove(link)
            link.delete()
            continue
        child = children[0]
        link.take_in(child)
        for grandchild in links:
            if grandchild.parent is child:
                grandchild.parent = link
        for snapshot, key in users:
            if snapshot.links[key] is child:
                snapshot.links[key] = link
        if disk.current is child:
            disk.current = link
        links.remove(child)
        child.delete()
