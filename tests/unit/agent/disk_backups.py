"""Backups of one disk from memory, through the agent's own DiskBackup, to a real hub's port."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.areas import EXTENT_BYTES, Area
from agent.backup_disk import DiskBackup
from agent.cancellation import Cancellation
from agent.job_tools import JobTools
from agent.job_warnings import JobWarnings
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.sampling import SampleSettings
from agent.vsphere.models import FrozenDisk
from sendense.channel import open_channel
from sendense.clusters import CLUSTER_BYTES, REGION_BYTES
from sendense.v1 import agent_session_pb2, backup_pb2
from tests.unit.agent.drawn_disks import MemoryReader, drawn
from tests.unit.agent.recording_hub import RecordingHub
from tests.unit.agent.resuming_hub import FarDisk

ALLOCATED = backup_pb2.READ_METHOD_ALLOCATED
CHANGED = backup_pb2.READ_METHOD_CHANGED
COMPARED = backup_pb2.READ_METHOD_COMPARED
EXTENT_CLUSTERS = EXTENT_BYTES // CLUSTER_BYTES
# Two extents, one frame each, before a region's end, and three behind it.
START = REGION_BYTES - 2 * EXTENT_BYTES
NOW = "ABCDEFGH" * 4 + "XbXX..Zz" * 4 + "JKLMNOPQ" * 4 + "QRSTUVWX" * 4 + "abABABAB" * 4
BEFORE = "AACDEFGI" * 2 + "ZZZZZZZZ" * 2 + "QQQQ.aQz" * 4 + "." * 32
BEFORE += "QRSTYYYY" * 4 + "abABYYYY" * 4
FEW = SampleSettings(fraction=0, least=3, first=1, neighbours=1)


def far(text: str, cut_bytes: int = 0) -> FarDisk:
    return FarDisk(START, drawn(text, cut_bytes=cut_bytes))


class Site:
    """The part of a VsphereSite that a disk's backup uses. `readers`: each one that it gave."""

    def __init__(self, disk: Any) -> None:
        self.disk = disk
        self.changed = [Area(getattr(disk, "start", 0), len(disk) - getattr(disk, "start", 0))]
        self.readers: list[MemoryReader] = []
        self.reader_options: list[dict[str, Any]] = []

    def changed_areas(self, *question: object) -> list[Area]:
        return self.changed

    def open_disk(self, *question: object) -> MemoryReader:
        assert all(reader.closed for reader in self.readers), "the last attempt's is still held"
        options = self.reader_options.pop(0) if self.reader_options else {}
        self.readers.append(MemoryReader(self.disk, allocated=self.changed, **options))
        return self.readers[-1]


class OneDisk:
    """A job of one disk; `run` backs it up and raises what ends the job."""

    def __init__(
        self, hub: RecordingHub, site: Site, encoders: EncoderPool, patience: Patience
    ) -> None:
        self.cancellation, self.warnings = Cancellation(), JobWarnings()
        self.tools = JobTools(
            site=site,  # type: ignore[arg-type]
            sweeper=None,  # type: ignore[arg-type]
            encoders=encoders,
            open_upload_channel=lambda: open_channel(hub.address, dedicated=True),
            disks_in_parallel=1,
            sampling=FEW,
            patience=patience,
        )
        size = len(site.disk)
        self._backup = DiskBackup(
            self.tools,
            None,  # type: ignore[arg-type]
            FrozenDisk(1, 2001, "uuid", "Hard disk 2", size, "52/7", "[ds] vm/vm-2.vmdk"),
            job_id="job-1",
            cancellation=self.cancellation,
            warnings=self.warnings,
        )

    def run(self, method: backup_pb2.ReadMethod) -> None:
        plan = agent_session_pb2.DiskPlan(
            disk_index=1, read_method=method, base_change_id="52/6" if method == CHANGED else ""
        )
        self._backup.run(plan)


@contextmanager
def one_disk(hub: RecordingHub, site: Site, hub_s: float = 60.0) -> Iterator[OneDisk]:
    with EncoderPool(2) as encoders:
        yield OneDisk(hub, site, encoders, Patience(answer_s=20, seal_s=20, read_s=20, hub_s=hub_s))
