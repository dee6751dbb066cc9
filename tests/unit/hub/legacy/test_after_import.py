"""A hub with imported restore points: restores, the next backup, deletion, start-up."""

from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event

import grpc
import pytest
from sqlalchemy import select

from hub.catalog.engine import Catalog
from hub.catalog.models import BackupJob
from hub.config import HubSettings
from hub.jobs.parts import Parts
from hub.legacy import needed
from hub.legacy.backing import NamedBase, named_bases
from hub.main import Hub
from hub.repository import Repository, RepositoryUnusable
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import context_pb2, restore_pb2
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.jobs.backups import context_of, delete, delete_context
from tests.unit.hub.legacy.conftest import Importer
from tests.unit.hub.legacy.decoded import decoded
from tests.unit.hub.legacy.old_system import OldSystem, group_id, qemu_img
from tests.unit.hub.running_hub import RunningHub, refusal

UUID = "5020-pgtest1"
MARK = "sendense-repository.json"
Start = Callable[..., AbstractContextManager[RunningHub]]


@pytest.fixture
def filled(old: OldSystem) -> OldSystem:
    """3 backups of 2 disks."""
    old.add_context()
    old.add_repository()
    old.add_backups(runs=3, disks=2)
    return old


@pytest.fixture
def started(settings: HubSettings, old: OldSystem) -> Start:
    """`with started(...) as hub:` imports with these choices, then runs a hub."""

    @contextmanager
    def start(**choices: object) -> Iterator[RunningHub]:
        catalog = Catalog(settings.catalog_url)
        importer = Importer(old, Parts(catalog))
        importer.apply(**choices)
        catalog.close()
        with Hub(settings) as running, grpc.insecure_channel(str(running.address)) as channel:
            yield RunningHub(running, channel)

    return start


@contextmanager
def agent_of(hub: RunningHub, vm: FakeVm) -> Iterator[FakeAgent]:
    with FakeAgent(hub.address, "lab", [vm]) as agent:
        agent.connect()
        yield agent


def next_backup(hub: RunningHub, agent: FakeAgent, content: str = "AB.C") -> pb.Backup:
    job = hub.start(repository="local-ssd")
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk(content)])
    done = hub.wait(job.job_id)
    assert done.status == pb.BACKUP_STATUS_COMPLETED, done.error
    return done


def contexts(hub: RunningHub) -> list[context_pb2.BackupContext]:
    answer = hub.contexts.ListContexts(context_pb2.ListContextsRequest(), timeout=20)
    return list(answer.contexts)


def test_imported_disks_are_restored_over_grpc(filled: OldSystem, started: Start) -> None:
    with started() as hub:
        for run in range(3):
            assert imported_content(hub, group_id(run), 1) == filled.content[filled.file(run, 1)]


@pytest.mark.parametrize("known", [False, True], ids=["by name and moref", "by uuid"])
def test_next_backup_is_a_full_in_the_imported_context(
    filled: OldSystem,
    started: Start,
    known: bool,
) -> None:
    chosen = {"pgtest1": UUID} if known else {}
    with started(instance_uuids=chosen) as hub, agent_of(hub, FakeVm()) as agent:
        (before,) = contexts(hub)
        assert (before.instance_uuid == UUID) is known
        first = next_backup(hub, agent)
        (context,) = contexts(hub)
        assert (context.context_id, context.instance_uuid) == (before.context_id, UUID)
        assert first.context_id == context.context_id
        assert (context.total_backups_run, context.restore_point_count) == (4, 4)
        assert context.last_backup_id == first.job_id
        assert first.backup_type == pb.BACKUP_TYPE_FULL
        assert run_numbers(hub)[first.job_id] == 4
        assert any("imported" in warning.message for warning in first.warnings), first.warnings
        second = next_backup(hub, agent, "AB.D")
        assert second.backup_type == pb.BACKUP_TYPE_INCREMENTAL
        assert imported_content(hub, group_id(2), 0) == filled.content[filled.file(2, 0)]


@pytest.mark.parametrize(
    "vm",
    [FakeVm(moref="vm-2"), FakeVm(name="pgtest2")],
    ids=["another moref", "another name"],
)
def test_vm_that_is_not_surely_the_imported_one_gets_a_context_of_its_own(
    filled: OldSystem,
    started: Start,
    vm: FakeVm,
) -> None:
    with started() as hub, agent_of(hub, vm) as agent:
        job = hub.start(vm.name, repository="local-ssd")
        agent.expect("start_job")
        assert {context.instance_uuid for context in contexts(hub)} == {
            "legacy:ctx-pgtest1-20251006-203401",
            vm.instance_uuid,
        }
        hub.cancel(job.job_id)


def test_import_after_the_first_backup_goes_into_its_context_before_it(
    filled: OldSystem, settings: HubSettings
) -> None:
    rows, filled.jobs[:] = list(filled.jobs), filled.jobs[:2]
    catalog = Catalog(settings.catalog_url)
    importer = Importer(filled, Parts(catalog))
    importer.apply()
    with Hub(settings) as running, grpc.insecure_channel(str(running.address)) as channel:
        hub = RunningHub(running, channel)
        with agent_of(hub, FakeVm()) as agent:
            first = next_backup(hub, agent)
    filled.jobs[:] = rows
    importer.apply()
    catalog.close()
    with Hub(settings) as running, grpc.insecure_channel(str(running.address)) as channel:
        hub = RunningHub(running, channel)
        before = {group_id(run): run + 1 for run in range(3)}
        assert run_numbers(hub) == before | {first.job_id: 4}
        context = context_of(hub, first)
        assert (context.last_backup_id, context.restore_point_count) == (first.job_id, 4)
        with agent_of(hub, FakeVm()) as agent:
            assert next_backup(hub, agent).backup_type == pb.BACKUP_TYPE_INCREMENTAL


def run_numbers(hub: RunningHub) -> dict[str, int]:
    with hub.parts.catalog.read() as session:
        return {
            row[0]: row[1] for row in session.execute(select(BackupJob.id, BackupJob.run_number))
        }


class TestDeletion:
    def test_newest_imported_job_takes_its_files_and_nothing_else(
        self,
        filled: OldSystem,
        started: Start,
    ) -> None:
        (filled.folder / "readme.txt").write_text("of the old system")
        with started() as hub:
            files = set(filled.hashes())
            gone = {str(filled.file(2, disk).relative_to(filled.folder)) for disk in (0, 1)}
            assert list(delete(hub, group_id(2)).job_ids) == [group_id(2)]
            assert set(filled.hashes()) == files - gone
            assert imported_content(hub, group_id(1), 0) == filled.content[filled.file(1, 0)]

    def test_imported_base_is_refused_without_cascade(
        self,
        filled: OldSystem,
        started: Start,
    ) -> None:
        with started() as hub:
            files = filled.hashes()
            reason = refusal(lambda: delete(hub, group_id(0)))[1]
            assert reason == "JOB_HAS_DEPENDANTS"
            assert filled.hashes() == files
            deleted = delete(hub, group_id(0), cascade=True)
            assert list(deleted.job_ids) == [group_id(run) for run in (2, 1, 0)]
            assert set(filled.hashes()) == {MARK}
            # Folders are the old system's.
            assert (filled.folder / "ctx-pgtest1-1" / "disk-2000").is_dir()

    def test_context_goes_with_the_files_of_all_its_imported_jobs(
        self,
        filled: OldSystem,
        started: Start,
    ) -> None:
        with started() as hub:
            delete_context(hub, contexts(hub)[0].context_id)
            assert set(filled.hashes()) == {MARK} and not contexts(hub)


class TestLeftOutLayers:
    """Files that the import left out, and that build on what it took."""

    @pytest.fixture
    def left_out(self, filled: OldSystem) -> list[str]:
        """The files of the second and third backup."""
        filled.row(1, 1)["status"] = "running"
        files = [filled.file(run, disk) for run in (1, 2) for disk in (0, 1)]
        return [str(file.relative_to(filled.folder)) for file in files]

    def test_their_base_is_not_deleted(
        self, filled: OldSystem, started: Start, left_out: list[str]
    ) -> None:
        with started() as hub:
            files = filled.hashes()
            (context,) = contexts(hub)
            for attempt in (
                lambda: delete(hub, group_id(0)),
                lambda: delete(hub, group_id(0), cascade=True),
                lambda: delete_context(hub, context.context_id),
            ):
                status, reason, facts = refusal(attempt)
                assert (status, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAYER_NEEDED")
                assert facts["job_id"] == group_id(0)
                needed_by = Path(facts["needed_by"])
                assert str(needed_by.relative_to(filled.folder)) in left_out[:2]
                assert (filled.folder / facts["path"]).parent == needed_by.parent
                assert filled.hashes() == files
                assert contexts(hub) == [context]
            assert imported_content(hub, group_id(0), 0) == filled.content[filled.file(0, 0)]

    @pytest.mark.usefixtures("left_out")
    def test_name_of_before_the_move_counts_as_well(
        self, filled: OldSystem, started: Start, tmp_path: Path
    ) -> None:
        for disk in (0, 1):
            before = Path("/mnt/old") / filled.file(0, disk).relative_to(filled.folder)
            rebase = ("rebase", "-u", "-f", "qcow2", "-b", str(before), "-F", "qcow2")
            qemu_img(*rebase, str(filled.file(1, disk)))
        with started() as hub:
            assert refusal(lambda: delete(hub, group_id(0)))[1] == "LAYER_NEEDED"

    def test_deletion_goes_on_when_they_are_moved_away(
        self, filled: OldSystem, started: Start, left_out: list[str], tmp_path: Path
    ) -> None:
        with started() as hub:
            for number, name in enumerate(left_out):
                (filled.folder / name).rename(tmp_path / f"kept-{number}.qcow2")
            assert list(delete(hub, group_id(0)).job_ids) == [group_id(0)]
            assert set(filled.hashes()) == {MARK}

    def test_folder_that_is_not_mounted_cannot_be_searched(
        self, filled: OldSystem, started: Start
    ) -> None:
        with started() as hub:
            away = filled.folder.rename(filled.folder.with_name("away"))
            filled.folder.mkdir()
            assert refusal(lambda: delete(hub, group_id(2)))[1] == "REPOSITORY_UNUSABLE"
            filled.folder.rmdir()
            away.rename(filled.folder)
            assert list(delete(hub, group_id(2)).job_ids) == [group_id(2)]

    def test_folder_that_does_not_answer_is_given_up(
        self, filled: OldSystem, started: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = Event()

        def search(*arguments: object) -> list[NamedBase]:
            assert answers.wait(20)
            return []

        with started() as hub:
            monkeypatch.setattr(needed, "named_bases", search)
            monkeypatch.setattr(needed, "SEARCH_S", 0.05)
            assert refusal(lambda: delete(hub, group_id(2)))[1] == "REPOSITORY_UNUSABLE"
            answers.set()
            monkeypatch.undo()
            assert list(delete(hub, group_id(2)).job_ids) == [group_id(2)]

    def test_search_that_began_before_a_removal_is_repeated(
        self, filled: OldSystem, started: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before: list[list[NamedBase]] = []

        def search(root: Path, skipped: Set[str]) -> list[NamedBase]:
            return before.pop() if before else named_bases(root, skipped)

        with started() as hub:
            before.append(named_bases(filled.folder, frozenset()))
            delete(hub, group_id(2))
            monkeypatch.setattr(needed, "named_bases", search)
            assert list(delete(hub, group_id(1)).job_ids) == [group_id(1)]
            assert not before

    def test_files_that_wait_for_their_removal_need_nothing(
        self, filled: OldSystem, started: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Repository, path: str) -> None:
            raise RepositoryUnusable(str(self.path), "is read-only")

        with started() as hub:
            monkeypatch.setattr(Repository, "remove_layer_file", fail)
            assert list(delete(hub, group_id(2)).pending_job_ids) == [group_id(2)]
            assert filled.file(2, 0).exists()
            assert list(delete(hub, group_id(1)).job_ids) == [group_id(1)]
            assert filled.file(1, 0).exists()


def test_start_up_touches_no_file_of_the_old_system(
    filled: OldSystem,
    started: Start,
) -> None:
    for name in (
        "a.partial",
        "ctx-pgtest1-1/disk-2000/b.partial",
        "ctx-pgtest1-1/disk-2000/c.manifest",
    ):
        (filled.folder / name).write_text("of the old system")
    (filled.folder / "ctx-pgtest1-1" / "empty").mkdir()
    (filled.folder / "empty").mkdir()
    files = set(filled.hashes())
    with started():
        assert set(filled.hashes()) == files | {MARK}
        assert (filled.folder / "ctx-pgtest1-1" / "empty").is_dir()
        assert (filled.folder / "empty").is_dir()


def imported_content(hub: RunningHub, job_id: str, disk: int) -> bytes:
    """The disk as RestoreDisk sends it."""
    request = restore_pb2.RestoreDiskRequest(job_id=job_id, disk_index=disk)
    return decoded(hub.restores.RestoreDisk(request, timeout=60))
