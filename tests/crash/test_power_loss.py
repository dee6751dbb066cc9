"""The power fails at any moment: what was told to be durable is there, and the hub goes on."""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

import grpc
import pytest

from hub.jobs.receive_disk import upload
from hub.repository.file_calls import replaced
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import upload_pb2
from tests.crash.lost_power import LostPower
from tests.crash.small_hub import JobOver, SmallHub, prepare, settings_in, small_hub
from tests.crash.summary import Tally
from tests.unit.hub.fake_agent import FakeDisk
from tests.unit.hub.jobs.backups import delete
from tests.unit.hub.repository.recorded_calls import Call, RecordedCalls

STATES = 30
OF_SOAK = 2000
_ACK = "ack"
_MARK = "sendense-repository.json"
_UNFINISHED = (pb.BACKUP_STATUS_PENDING, pb.BACKUP_STATUS_RUNNING)


class Recording(RecordedCalls):
    """The changes, and at each of them the catalog as it was committed before."""

    def __init__(self, catalog: Path, copies: Path) -> None:
        super().__init__()
        self.catalogs: list[Path] = []  # one for each call
        self._copies = copies
        self._connection = sqlite3.connect(catalog, check_same_thread=False)
        self._version = -1
        copies.mkdir()

    def _add(self, call: Call) -> None:
        super()._add(call)
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            copy = self._copies / f"{len(self.catalogs)}.db"
            self._connection.execute("VACUUM INTO ?", (str(copy),))
        else:
            copy = self.catalogs[-1]
        self.catalogs.append(copy)

    def end(self) -> None:
        """Nothing is recorded any more."""
        self.note("end")
        self._connection.close()


class Story:
    """What a hub did, from its first backup on, and what its agent knows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = settings_in(folder)
        prepare(settings)
        self.repository = folder / "repository"
        # The repository itself was made long ago.
        self._mark = (self.repository / _MARK).read_bytes()
        self.disks: dict[str, FakeDisk] = {}
        self.recording = Recording(folder / "catalog.db", folder.with_name(folder.name + "-copies"))
        with replaced(self.recording), _acks_noted(self.recording):
            mark = os.O_WRONLY | os.O_CREAT
            (self.repository / _MARK).unlink()
            fd = self.recording.open(self.repository / _MARK, mark)
            self.recording.pwritev(fd, [self._mark], 0)
            self.recording.fsync(fd)
            os.close(fd)
            self._sync_folder()
            self.first = len(self.recording.calls)
            with small_hub(folder) as hub:
                full = hub.backup("ABR0")
                hub.backup("XY0C")
                delete(hub.hub, full, cascade=True)
                _wait_for_another_second()
                hub.backup("RRC.")
                hub.backup("RQ00")
                self.disks = hub.disks
                assert len(self.disks) == 4
            self.recording.end()

    def _sync_folder(self) -> None:
        fd = os.open(self.repository, os.O_RDONLY)
        self.recording.fsync(fd)
        os.close(fd)

    @property
    def moments(self) -> range:
        """At which the power may fail: behind so many calls."""
        return range(self.first, len(self.recording.calls))

    def lose_power(self, moment: int, random: Random) -> None:
        """Files and catalog as they are after it."""
        LostPower(self.repository, self.recording.calls[:moment]).write(random)
        for path in self.folder.glob("catalog.db*"):
            path.unlink()
        shutil.copy(self.recording.catalogs[moment], self.folder / "catalog.db")

    def acknowledged(self, moment: int, job_id: str) -> int:
        """The frames of the job that its agent had been told to be durable."""
        told = [call.text.split() for call in self.recording.calls[:moment] if call.name == _ACK]
        return max((int(frames) for job, frames in told if job == job_id), default=0)


def _wait_for_another_second() -> None:
    """Ids of jobs have the second in them: that of a deleted one may be given again within it."""
    now, pause = int(time.time()), threading.Event()
    while int(time.time()) == now:
        pause.wait(0.01)


@contextmanager
def _acks_noted(recording: Recording) -> Iterator[None]:
    real = upload._Upload._sync

    def sync(self: upload._Upload) -> upload_pb2.UploadAck | None:
        ack = real(self)
        if ack is not None:
            recording.note(_ACK, f"{self._stream.job_id} {ack.durable_frames}")
        return ack

    with patch.object(upload._Upload, "_sync", sync):
        yield


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("power"))


def _live_on(story: Story, moment: int) -> None:
    """A hub starts on what is left: nothing that was told is lost, and it goes on."""
    with small_hub(story.folder, job_ids=list(story.disks)) as hub:
        for job_id, disk in story.disks.items():
            job = _job(hub, job_id)
            if job is not None and job.status in _UNFINISHED:
                _go_on(hub, job_id, disk, story.acknowledged(moment, job_id))
        hub.assert_in_order()
        for job_id, disk in story.disks.items():
            job = _job(hub, job_id)
            if job is None:
                continue
            assert job.status not in _UNFINISHED, job
            if job.status == pb.BACKUP_STATUS_COMPLETED:
                hub.assert_restores(job_id, disk.content)
        hub.sequence = 100
        new = hub.backup("N0RX")
        hub.assert_restores(new, "N0RX")


def _job(hub: SmallHub, job_id: str) -> pb.Backup | None:
    try:
        return hub.hub.get(job_id)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        return None


def _go_on(hub: SmallHub, job_id: str, disk: FakeDisk, acknowledged: int) -> None:
    """The agent of an unfinished job: it has the snapshot still, and repeats what it said."""
    try:
        hub.open(job_id, disk)
        durable = hub.upload(job_id, disk.content)
    except JobOver:
        assert hub.hub.wait(job_id).status != pb.BACKUP_STATUS_RUNNING
        return
    assert durable >= acknowledged, f"{durable} frames of {acknowledged} acknowledged ones"
    done = hub.finish(job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error


def _tried(story: Story, moments: Sequence[int], seed: int, tally: Tally) -> None:
    for moment in moments:
        tally.count("losses of power")
        random = Random(f"{seed}/{moment}")
        story.lose_power(moment, random)
        try:
            _live_on(story, moment)
        except BaseException:
            print(f"power lost behind call {moment} ({story.recording.calls[moment]}), seed {seed}")
            raise


@pytest.mark.timeout(300)
def test_hub_goes_on_after_power_was_lost(story: Story, tally: Tally) -> None:
    seed = int.from_bytes(os.urandom(4))
    _tried(story, sorted(Random(seed).sample(story.moments, STATES)), seed, tally)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_hub_goes_on_after_power_was_lost_anywhere(story: Story, tally: Tally) -> None:
    for seed in range(-(-OF_SOAK // len(story.moments))):
        _tried(story, story.moments, seed, tally)
