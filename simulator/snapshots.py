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
    """A disk as a snapshot froze it. The link is looked up by the snapshot: it may be merged."""

    disk: SimulatedDisk
    capacity_bytes: int
    tracking: ChangeTracking | None
    change_id: ChangeId | None


@dataclass
class Snapshot:
    """A node of a VM's snapshot tree."""

    moid: str
    number: int
    name: str
    description: str
    created: datetime
    quiesced: bool
    power_state: PowerState
    change_tracking_enabled: bool
    parent: "Snapshot | None"
    disks: list[FrozenDisk]
    links: dict[int, Link]  # by device key
    others: list[SimulatedDisk]  # independent disks: listed, not frozen
    children: list["Snapshot"] = field(default_factory=list)

    def with_descendants(self) -> Iterator["Snapshot"]:
        """This snapshot and everything below it."""
        yield self
        for child in self.children:
            yield from child.with_descendants()


def consolidate(disk: SimulatedDisk, links: list[Link], snapshots: list[Snapshot]) -> None:
    """Merge a disk's links that neither the guest nor a snapshot needs; `links` is base first.

    A merged link takes in its only child and stands for it from then on; one without
    children is removed; a shared base of two branches stays.
    """
    users = [one for one in snapshots if disk.key in one.links]
    for link in reversed(list(links)):
        if link is disk.current or any(one.links[disk.key] is link for one in users):
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
        for one in users:
            if one.links[disk.key] is child:
                one.links[disk.key] = link
        if disk.current is child:
            disk.current = link
        links.remove(child)
        child.delete()
