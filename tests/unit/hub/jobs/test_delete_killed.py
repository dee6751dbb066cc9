"""A hub that is killed at any step of a deletion leaves files, never rows without files."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from hub.catalog.engine import Catalog
from hub.catalog.file_removals import pending_removals
from hub.catalog.models import BackupDisk, BackupJob
from hub.catalog.queries import restorable_chain
from hub.config import HubSettings
from hub.jobs.parts import Parts
from hub.jobs.recover import recover
from hub.jobs.repositories import create_repository, layer_base, open_repository
from hub.main import Hub
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeVm, raw_bytes
from tests.unit.hub.jobs.backups import backed_up
from tests.unit.hub.jobs.killed_deletion import DATABASE, REPOSITORY
from tests.unit.hub.running_hub import RunningHub

ROOT = Path(__file__).parents[4]


@pytest.fixture
def settings(tmp_path: Path) -> HubSettings:
    state = tmp_path / "state"
    state.mkdir()
    return settings_of(state)


def settings_of(state: Path) -> HubSettings:
    return HubSettings(
        listen="127.0.0.1:0", catalog_url=f"sqlite:///{state / DATABASE}", state_dir=state
    )


@pytest.fixture
def jobs(settings: HubSettings) -> list[pb.Backup]:
    """A full and two increments, by a hub that has ended since."""
    catalog = Catalog(settings.catalog_url)
    catalog.upgrade()
    folder = str(settings.state_dir / REPOSITORY)
    create_repository(Parts(catalog), name="default", path=folder, default=True)
    catalog.close()
    with (
        Hub(settings) as hub,
        grpc.insecure_channel(str(hub.address)) as channel,
        FakeAgent(str(hub.address), "lab", [FakeVm()]) as agent,
    ):
        agent.connect()
        running = RunningHub(hub, channel)
        return [backed_up(running, agent, text, n) for n, text in enumerate(("ABC", ".X.", "..Y"))]


def killed_at_every_step(settings: HubSettings, *what: str) -> list[Path]:
    """A state for each step that a deletion was killed before; the last was not killed."""
    state = settings.state_dir
    told = subprocess.run(
        [sys.executable, "-m", "tests.unit.hub.jobs.killed_deletion", str(state), *what],
        cwd=ROOT,
        check=True,
        timeout=100,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Above it are lines of the log.
    states = int(told.stdout.splitlines()[-1])
    return [state.with_name(f"{state.name}-{number}") for number in range(states)]


def files(state: Path) -> set[str]:
    folder = state / REPOSITORY
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def require_whole(catalog: Catalog) -> set[str]:
    """Every row of a restore point has its layers; the jobs that are there."""
    with catalog.read() as session:
        for disk in session.query(BackupDisk):
            repository = open_repository(disk.job.context.repository)
            for row in restorable_chain(session, disk.backup_job_id, disk.disk_index):
                assert repository.check_layer(layer_base(row)).hex() == row.root_digest
        return {job.id for job in session.query(BackupJob)}


@pytest.mark.parametrize("kind", ["job", "context"])
def test_next_start_removes_what_a_killed_deletion_left(
    settings: HubSettings, jobs: list[pb.Backup], kind: str
) -> None:
    context_id = jobs[0].context_id
    stays = {jobs[0].job_id} if kind == "job" else set()
    states = killed_at_every_step(settings, kind, jobs[1].job_id if kind == "job" else context_id)
    before = files(settings.state_dir)
    kept = {"sendense-repository.json"}
    if kind == "job":
        kept |= {context_id} | {path for path in before if path.split("/")[1:2] == [*stays]}
    deleted_jobs = 2 if kind == "job" else 3
    # The commit; of each job its 3 files, its folder and the note; the context's
    # folder is tried for each job and goes with the last.
    assert len(states) == 1 + 1 + deleted_jobs * (3 + 1 + 1 + 1)
    left_files = 0
    for number, state in enumerate(states):
        catalog = Catalog(settings_of(state).catalog_url)
        job_ids = require_whole(catalog)
        committed = number > 0
        assert job_ids == (stays if committed else {job.job_id for job in jobs})
        if not committed:
            assert files(state) == before
            catalog.close()
            continue
        left_files += files(state) != kept
        recover(Parts(catalog))
        assert files(state) == kept, f"killed before step {number}"
        assert require_whole(catalog) == stays
        with catalog.read() as session:
            assert pending_removals(session) == []
        catalog.close()
    # All but the last steps left something to the recovery.
    assert left_files >= len(states) - 4


def test_hub_that_starts_on_what_a_killed_deletion_left_goes_on(
    settings: HubSettings, jobs: list[pb.Backup]
) -> None:
    states = killed_at_every_step(settings, "job", jobs[1].job_id)
    for state in (states[1], states[3]):
        with (
            Hub(settings_of(state)) as hub,
            grpc.insecure_channel(str(hub.address)) as channel,
            FakeAgent(str(hub.address), "lab", [FakeVm()]) as agent,
        ):
            agent.connect()
            running = RunningHub(hub, channel)
            assert {name.split("/")[1] for name in running.files()} == {jobs[0].job_id}
            again = backed_up(running, agent, ".ZZ", 9)
            assert again.disks[0].base_job_id == jobs[0].job_id
            assert running.restored(again.job_id) == raw_bytes("AZZ")
