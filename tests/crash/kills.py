"""The places where programs are killed: every named point, and later arrivals where there are some."""

from dataclasses import dataclass
from typing import Final, Literal

Program = Literal["hub", "agent"]


@dataclass(frozen=True)
class Kill:
    """Of one program, at the nth arrival at a point."""

    point: str
    nth: int = 1

    @property
    def fewest_disks(self) -> int:
        """Of a VM whose backup is sure to come there so often."""
        if self.nth == 1:
            return 1
        return 2 if self.point in (*OF_EACH_DISK, *OF_EACH_FRAME) else 3

    @property
    def program(self) -> Program:
        return "hub" if self.point.startswith("hub.") else "agent"

    def __str__(self) -> str:
        return self.point if self.nth == 1 else f"{self.point}-{self.nth}"


# A backup of two disks comes to each of them, and to the repeated ones more than once.
OF_A_BACKUP: Final = (
    "hub.start.committed",
    "hub.start.sent",
    "hub.open.committed",
    "hub.open.planned",
    "hub.upload.begun",
    "hub.layer.created",
    "hub.layer.appended",
    "hub.layer.data_synced",
    "hub.layer.journaled",
    "hub.upload.acknowledged",
    "hub.upload.finished",
    "hub.seal.tables_written",
    "hub.seal.footer_written",
    "hub.seal.renamed",
    "hub.seal.published",
    "hub.upload.seal_recorded",
    "hub.read.recorded",
    "hub.complete.facts_written",
    "hub.complete.committed",
    "hub.complete.closed",
    "agent.job.taken",
    "agent.snapshot.taken",
    "agent.job.opened",
    "agent.plan.received",
    "agent.disk.planned",
    "agent.upload.opened",
    "agent.upload.frame_sent",
    "agent.upload.acknowledged",
    "agent.upload.finishing",
    "agent.upload.sealed",
    "agent.job.checked",
    "agent.job.read",
    "agent.snapshot.removed",
    "agent.job.uploaded",
)
OF_EACH_DISK: Final = (
    "hub.upload.begun",
    "hub.layer.created",
    "hub.upload.finished",
    "hub.seal.tables_written",
    "hub.seal.footer_written",
    "hub.seal.renamed",
    "hub.seal.published",
    "hub.upload.seal_recorded",
    "agent.disk.planned",
    "agent.upload.opened",
    "agent.upload.finishing",
    "agent.upload.sealed",
)
OF_EACH_STEP: Final = (
    "hub.layer.data_synced",
    "hub.layer.journaled",
    "hub.upload.acknowledged",
    "agent.upload.acknowledged",
)
OF_EACH_FRAME: Final = ("hub.layer.appended", "agent.upload.frame_sent")
OF_RECOVERY: Final = ("hub.recover.jobs_settled", "hub.recover.leftovers_removed")
OF_AN_END: Final = "hub.end.rows_ended"
OF_A_REMOVAL: Final = "hub.removal.files_removed"

KILLS: Final = (
    *(Kill(point) for point in OF_A_BACKUP),
    *(Kill(point, 2) for point in OF_EACH_DISK),
    *(Kill(point, 2) for point in OF_EACH_STEP),
    *(Kill(point, 3) for point in OF_EACH_FRAME),
)
# Points that a test holds the program at, to do something else just then.
STAGES: Final = tuple(
    point
    for point in OF_A_BACKUP
    # Somebody waits for the answer there, or the job has ended.
    if not point.startswith(("hub.start.", "hub.complete.")) and point != "agent.job.uploaded"
)
