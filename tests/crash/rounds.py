"""One round: the guest writes, a backup runs, something dies in the middle, and all is well after."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sendense import Backup, BackupStatus
from sendense.errors import SendenseError
from tests.crash.children import Child
from tests.crash.fail_points import Trap
from tests.crash.installation import Installation, installation
from tests.crash.kills import Kill
from tests.crash.proof import assert_nothing_is_left, assert_restores, most_resent
from tests.crash.summary import Tally
from tests.model.disks import CLUSTER, Image
from tests.model.guest import Act, GuestVm

DISK_BYTES: Final = 16 << 20
FILLED_BYTES: Final = 6 << 20
# So many frames of a disk at the least: a third arrival is one of many.
WRITTEN_BYTES: Final = 5 << 20


@dataclass
class Scene:
    """A running installation and its guests, of one, two and three disks, by their count."""

    there: Installation
    guests: dict[int, GuestVm]
    _writes: int = 0

    def child(self, program: str) -> Child:
        return self.there.hub if program == "hub" else self.there.agent

    def write(self, guest: GuestVm, seed: int) -> None:
        """Enough for several acknowledgements of each disk, and a few small things."""
        # Others than the last time: what a disk holds already is not sent.
        self._writes += 1
        seed = random.Random(f"{seed} {self._writes}").randrange(1 << 32)
        chance = random.Random(seed)
        for index in range(len(guest.disks)):
            last = (DISK_BYTES - WRITTEN_BYTES) // CLUSTER
            guest.act(Act("write", index, chance.randrange(last), 0, WRITTEN_BYTES, seed=seed))
            guest.act(Act("trim", index, chance.randrange(last), 512, 3 * CLUSTER))
            guest.act(Act("zero", index, chance.randrange(last), 0, 2 * CLUSTER))

    def settle(self) -> None:
        """Both programs run, without traps."""
        self.there.start_what_is_dead()
        self.there.hub.release()
        self.there.agent.release()
        self.there.wait_agent()

    def prove(
        self, job: Backup, moments: list[dict[str, Image]], tally: Tally, *, kills: int = 1
    ) -> None:
        """The job is a restore point of one of these moments, and nothing is left behind."""
        assert_restores(self.there, job, moments)
        assert_nothing_is_left(self.there)
        tally.most("payload bytes sent again for a disk", most_resent(job, kills))
        tally.count("uploads resumed", sum(disk.resume_count for disk in job.disks))
        tally.count("bytes stored", sum(disk.bytes_stored for disk in job.disks))
        tally.count("payload bytes transferred", sum(disk.bytes_transferred for disk in job.disks))
        tally.count("payload bytes sent again", sum(disk.bytes_resent for disk in job.disks))
        tally.count(f"jobs ended {BackupStatus(job.status).name.lower()}")

    def prove_next(self, guest: GuestVm, tally: Tally) -> None:
        """Another backup of the VM works as if nothing had been."""
        guest.act(Act("write", 0, 7, 512, 2 * CLUSTER, seed=99))
        job = self.there.completed(guest.vm)
        self.prove(job, [guest.images()], tally, kills=0)

    def kill_in_backup(
        self, guest: GuestVm, kill: Kill, tally: Tally, *, full: bool = False, seed: int
    ) -> Backup:
        """A backup in which a program dies at a point; the job as it ended."""
        self.write(guest, seed)
        moments = [guest.images()]
        child = self.child(kill.program)
        child.arm(Trap(kill.point, kill.nth))
        deaths = child.deaths
        job_id = self.there.order(guest.vm, full=full)
        if child.deaths == deaths:  # it did not die while it was asked
            child.wait_killed()
        assert child.has_reached(kill.point)
        tally.count(f"kills at {kill.point}")
        tally.count("kills")
        # The guest goes on meanwhile: all disks are to be of one moment all the same.
        guest.act(Act("write", len(guest.disks) - 1, 3, 0, 2 * CLUSTER, seed=seed + 1))
        moments.append(guest.images())
        self.there.start_what_is_dead()
        job = self.there.wait_ended(job_id)
        if BackupStatus(job.status) != BackupStatus.COMPLETED:
            tally.count(f"jobs failed: {job.error.reason}")
        self.settle()
        self.prove(job, moments, tally)
        return job

    def delete(self, job_id: str) -> None:
        """Ask for the deletion of a backup and its increments, of a hub that dies over it."""
        try:
            self.there.client.delete_backup(job_id, cascade=True)
        except SendenseError as error:
            print(f"the deletion was not answered: {error}")


@contextmanager
def running_scene(folder: Path) -> Iterator[Scene]:
    """Three VMs with one full backup each."""
    with installation(folder) as there:
        guests = {}
        for count in (1, 2, 3):
            guest = GuestVm(there.site.add_vm(f"victim{count}"))
            for index in range(count):
                guest.add_disk(DISK_BYTES)
                guest.act(Act("write", index, 0, 0, FILLED_BYTES, seed=10 * count + index))
            guests[count] = guest
        there.start_hub()
        there.start_agent()
        for guest in guests.values():
            there.completed(guest.vm)
        yield Scene(there, guests)
