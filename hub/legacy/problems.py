"""Why a backup is left out, told to each of its rows."""

from collections.abc import Iterable
from dataclasses import dataclass

from hub.legacy.old_catalog import LeftOut, OldDisk


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a backup; `disk` is the one that it is wrong with, where it is one."""

    text: str
    disk: OldDisk | None = None

    def told_to(self, disk: OldDisk) -> str:
        """The reason for a disk's rows: of another disk's problem they are told whose it is."""
        if self.disk is None or self.disk.refs == disk.refs:
            return self.text
        return f"disk {self.disk.disk_index} ({self.disk.refs[0]}): {self.text}"


def left_out(
    disks: Iterable[OldDisk], backup: str, problem: Problem, *, unsuccessful: bool = False
) -> list[LeftOut]:
    """The rows of the backup of that key, disk by disk."""
    return [
        LeftOut(
            tuple(sorted(disk.refs)),
            disk.vm.vm_name,
            disk.vm.repository_id,
            backup,
            problem.told_to(disk),
            is_unsuccessful=unsuccessful,
            disk=disk,
        )
        for disk in disks
    ]
