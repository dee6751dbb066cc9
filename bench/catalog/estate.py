"""What is backed up in the benchmark: sites, repositories and VMs as a large company has them.

Everything follows from the number of disk rows that is wanted and from a seed.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

SEED: Final = 20251008
# The last backup was created a moment before.
NOW: Final = datetime(2025, 10, 8, 12, 0, tzinfo=UTC)
DAYS: Final = 100
# Disks of a VM, and how common that is.
DISKS: Final = ((1, 25), (2, 35), (3, 20), (4, 12), (6, 8))
MEAN_DISKS: Final = 2.51
ROLES: Final = ("web", "app", "db", "mail", "file", "print", "proxy", "erp", "build", "backup")
STAGES: Final = ("prod", "test", "dev", "stage")
# Each site has one VM of these names, and several tills.
EVERYWHERE: Final = ("dc01", "vcenter")
TILL: Final = "Kasse"
TILLS_OF_A_SITE: Final = 5
# VMs that are backed up every hour, all of one name.
HOURLY: Final = "oltp"
# About so many, with 1,000,000 disk rows.
HOURLY_VMS: Final = 10
FULL_EVERY_DAYS: Final = 7


@dataclass(slots=True)
class Machine:
    """A VM in a repository, and how far its backups came."""

    context_id: str
    name: str
    moref: str
    instance_uuid: str
    site: str
    repository_id: str
    disks: int
    hourly: bool
    created_at: datetime
    slot: timedelta  # of the day, when its backup starts
    runs: int = 0
    successful: int = 0
    failed: int = 0
    stored_bytes: int = 0
    last_id: str | None = None
    last_type: str | None = None
    last_at: datetime | None = None
    bases: list[int] = field(default_factory=list)  # disk rows of the last completed job


@dataclass(frozen=True, slots=True)
class Estate:
    """All there is to back up."""

    sites: list[str]
    repositories: list[str]
    machines: list[Machine]


def make_estate(disk_rows: int) -> Estate:
    """With about as many backups, one a day and VM, as make `disk_rows` rows of disks."""
    chance = random.Random(SEED)
    contexts = max(4, round(disk_rows / MEAN_DISKS / DAYS * 1.02))
    sites = [f"site-{number:02d}" for number in range(max(2, min(60, contexts // 60)))]
    repositories = [f"repo-{number:02d}" for number in range(max(2, min(40, contexts // 100)))]
    machines: list[Machine] = []
    number = 0
    while len(machines) < contexts:
        number += 1
        site = sites[number % len(sites)]
        turn = number // len(sites)
        if turn < len(EVERYWHERE):
            name = EVERYWHERE[turn]
        elif turn < len(EVERYWHERE) + TILLS_OF_A_SITE:
            name = TILL
        elif contexts > 1000 and number % (contexts // (HOURLY_VMS + 2)) == 0:
            name = HOURLY
        else:
            name = f"{chance.choice(ROLES)}-{chance.choice(STAGES)}-{number:05d}"
        disks = chance.choices([d for d, _ in DISKS], [weight for _, weight in DISKS])[0]
        uuid = f"{chance.getrandbits(128):032x}"
        # One in ten has a second context, in another repository.
        copies = 2 if chance.random() < 0.1 and name != HOURLY else 1
        for repository in chance.sample(repositories, copies)[: contexts - len(machines)]:
            index = len(machines)
            machines.append(
                Machine(
                    context_id=f"ctx-backup-{name.lower()}-{1750000000 + index}",
                    name=name,
                    moref=f"vm-{1000 + number}",
                    instance_uuid=f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}",
                    site=site,
                    repository_id=repository,
                    disks=disks,
                    hourly=name == HOURLY,
                    created_at=NOW - timedelta(days=DAYS),
                    slot=timedelta(
                        seconds=chance.randrange(86_000), microseconds=index % 1_000_000
                    ),
                )
            )
    return Estate(sites, repositories, machines)
