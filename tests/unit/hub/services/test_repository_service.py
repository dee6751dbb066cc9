"""Repositories over gRPC: use, test, names, default, disabled, deletion, folders that hang."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from hub.catalog.engine import Catalog
from hub.catalog.file_removals import request_removals
from hub.config import HubSettings
from hub.jobs import manage_repositories, repositories, repository_states
from hub.main import Hub
from hub.repository import Repository
from sendense.v1 import backup_pb2
from sendense.v1 import repository_pb2 as pb
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk
from tests.unit.hub.running_hub import RunningHub, refusal

Code = grpc.StatusCode
MARK = "sendense-repository.json"
T = 60


def create(hub: RunningHub, folder: Path, name: str = "cellar", **more: bool) -> pb.Repository:
    request = pb.CreateRepositoryRequest(name=name, path=str(folder), **more)
    return hub.repositories.CreateRepository(request, timeout=T).repository


def get(hub: RunningHub, name: str = "cellar") -> pb.Repository:
    request = pb.GetRepositoryRequest(repository=name)
    return hub.repositories.GetRepository(request, timeout=T).repository


def listed(hub: RunningHub) -> list[pb.Repository]:
    answer = hub.repositories.ListRepositories(pb.ListRepositoriesRequest(), timeout=T)
    return list(answer.repositories)


def tried(hub: RunningHub, name: str = "cellar") -> pb.TestRepositoryResponse:
    request = pb.TestRepositoryRequest(repository=name)
    return hub.repositories.TestRepository(request, timeout=T)


def rename(hub: RunningHub, name: str, new_name: str) -> pb.Repository:
    request = pb.RenameRepositoryRequest(repository=name, new_name=new_name)
    return hub.repositories.RenameRepository(request, timeout=T).repository


def set_default(hub: RunningHub, name: str) -> pb.Repository:
    request = pb.SetDefaultRepositoryRequest(repository=name)
    return hub.repositories.SetDefaultRepository(request, timeout=T).repository


def disable(hub: RunningHub, name: str) -> pb.Repository:
    request = pb.DisableRepositoryRequest(repository=name)
    return hub.repositories.DisableRepository(request, timeout=T).repository


def enable(hub: RunningHub, name: str) -> pb.Repository:
    request = pb.EnableRepositoryRequest(repository=name)
    return hub.repositories.EnableRepository(request, timeout=T).repository


def delete(hub: RunningHub, name: str = "cellar") -> pb.Repository:
    request = pb.DeleteRepositoryRequest(repository=name)
    return hub.repositories.DeleteRepository(request, timeout=T).repository


def mark(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / MARK).read_text())
    return found


def backed_up(hub: RunningHub, agent: FakeAgent, **more: str) -> backup_pb2.Backup:
    job = hub.start(**more)
    agent.expect("start_job")
    agent.run_job(job.job_id, [FakeDisk("AB.C")])
    ended = hub.wait(job.job_id)
    assert ended.status == backup_pb2.BACKUP_STATUS_COMPLETED
    return ended


@contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Whoever reads the folder's mark hangs, as on a mount whose server is away."""
    path, aside = folder / MARK, folder / "aside"
    path.rename(aside)
    os.mkfifo(path)
    try:
        yield
    finally:
        # Lets go of readers; without one there is nothing to let go.
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        aside.replace(path)


class TestCreate:
    @pytest.mark.parametrize("what", ["resolve", "id_in", "create"])
    def test_folder_that_hangs_is_an_error_in_time_and_made_once_it_answers(
        self, hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        answers, hung = threading.Event(), threading.Event()
        owner = Path if what == "resolve" else Repository
        real = getattr(owner, what)

        def hanging_call(*given: Any, **more: Any) -> Any:
            if str(given[0]).endswith("cellar"):
                hung.set()
                assert answers.wait(T)
            return real(*given, **more)

        with monkeypatch.context() as patch:
            patch.setattr(
                owner, what, hanging_call if what == "resolve" else staticmethod(hanging_call)
            )
            patch.setattr(repositories, "LOOK_S", 0.2)
            patch.setattr(repositories, "CREATE_S", 0.2)
            code, reason, facts = refusal(lambda: create(hub, tmp_path / "cellar"))
            assert hung.is_set()
            assert (code, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE")
            assert "has not answered for 0.2 s" in facts["problem"]
            # The hub goes on with everything else.
            assert create(hub, tmp_path / "attic", "attic").problem == ""
            answers.set()
        for attempt in Retrying(
            retry=retry_if_exception_type(grpc.RpcError), stop=stop_after_delay(T), reraise=True
        ):
            with attempt:
                made = create(hub, tmp_path / "cellar")
        assert mark(tmp_path / "cellar")["repository_id"] == made.repository_id

    def test_path_that_cannot_be_resolved_is_refused(self, hub: RunningHub, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        code, _, facts = refusal(lambda: create(hub, tmp_path / "loop" / "cellar"))
        assert (code, facts["field"]) == (Code.INVALID_ARGUMENT, "path")


class TestList:
    def test_use_and_capacity_are_told(self, hub: RunningHub, agent: FakeAgent) -> None:
        job = backed_up(hub, agent)
        (found,) = listed(hub)
        assert (found.context_count, found.restore_point_count) == (1, 1)
        assert found.bytes_stored == job.bytes_stored > 0
        assert 0 < found.free_bytes < found.total_bytes
        assert (found.problem, found.disabled) == ("", False)
        again = get(hub, "default")
        again.free_bytes = found.free_bytes  # of a file system that others use
        assert again == found

    def test_pages_come_in_the_order_of_names(self, hub: RunningHub, tmp_path: Path) -> None:
        for name in ("b", "a"):
            create(hub, tmp_path / name, name)
        token, names = "", []
        while True:
            request = pb.ListRepositoriesRequest(page_size=2, page_token=token)
            answer = hub.repositories.ListRepositories(request, timeout=T)
            names.append([one.name for one in answer.repositories])
            token = answer.next_page_token
            if not token:
                break
        assert names == [["a", "b"], ["default"]]

    def test_folder_that_is_away_is_a_problem_of_its_repository_alone(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        create(hub, tmp_path / "cellar")
        (tmp_path / "cellar").rename(tmp_path / "away")
        away, usable = listed(hub)
        assert "is it mounted" in away.problem
        assert (away.total_bytes, away.free_bytes) == (0, 0)
        assert (usable.name, usable.problem) == ("default", "")

    def test_folder_that_hangs_is_a_problem_until_it_answers(
        self, hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(hub, tmp_path / "cellar")
        monkeypatch.setattr(repository_states, "LOOK_S", 0.2)
        with hanging(tmp_path / "cellar"):
            for _ in range(2):  # the second one asks while the first one's thread hangs
                hangs, usable = listed(hub)
                assert "has not answered for 0.2 s" in hangs.problem
                assert (usable.name, usable.problem) == ("default", "")
        monkeypatch.undo()
        found = get(hub)  # waits for the thread that hung, which read nothing
        if found.problem:
            found = get(hub)
        assert found.problem == ""
        assert found.total_bytes > 0


class TestTest:
    def test_usable_folder_passes_all_checks(self, hub: RunningHub, tmp_path: Path) -> None:
        create(hub, tmp_path / "cellar")
        answer = tried(hub)
        assert answer.passed
        assert [check.name for check in answer.checks] == [
            *("mark", "space", "write", "read", "remove")
        ]
        assert all(check.passed and check.message for check in answer.checks)
        assert answer.repository.name == "cellar"
        assert [path.name for path in (tmp_path / "cellar").iterdir()] == [MARK]

    def test_failed_check_is_an_answer(self, hub: RunningHub, tmp_path: Path) -> None:
        create(hub, tmp_path / "cellar")
        (tmp_path / "cellar" / MARK).unlink()
        answer = tried(hub)
        assert not answer.passed
        assert [(check.name, check.passed) for check in answer.checks] == [("mark", False)]
        assert "is it mounted" in answer.checks[0].message
        assert answer.repository.problem

    def test_file_system_that_hangs_is_a_failed_check(
        self, hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(hub, tmp_path / "cellar")
        monkeypatch.setattr(repository_states, "LOOK_S", 0.2)
        monkeypatch.setattr(manage_repositories, "TEST_S", 0.2)
        with hanging(tmp_path / "cellar"):
            answer = tried(hub)
            assert [(check.name, check.passed) for check in answer.checks] == [("mark", False)]
            assert "has not answered" in answer.checks[0].message
        assert not answer.passed

    def test_unknown_repository_is_not_found(self, hub: RunningHub) -> None:
        for call in (tried, delete, disable, enable, set_default, get):
            assert refusal(lambda c=call: c(hub, "nowhere"))[:2] == (
                Code.NOT_FOUND,
                "REPOSITORY_NOT_FOUND",
            )


class TestRename:
    def test_row_and_mark_have_the_new_name(self, hub: RunningHub, tmp_path: Path) -> None:
        made = create(hub, tmp_path / "cellar")
        renamed = rename(hub, "cellar", "attic")
        assert (renamed.name, renamed.repository_id) == ("attic", made.repository_id)
        assert renamed.path == made.path
        assert mark(tmp_path / "cellar") == {
            "format": 1,
            "name": "attic",
            "repository_id": made.repository_id,
        }
        assert get(hub, made.repository_id).name == "attic"
        assert tried(hub, "attic").passed

    def test_rename_holds_without_the_folder(self, hub: RunningHub, tmp_path: Path) -> None:
        create(hub, tmp_path / "cellar")
        (tmp_path / "cellar").rename(tmp_path / "away")
        renamed = rename(hub, "cellar", "attic")
        assert (renamed.name, "is it mounted" in renamed.problem) == ("attic", True)
        (tmp_path / "away").rename(tmp_path / "cellar")
        # The id counts; repeating the rename brings the mark up to date.
        assert (mark(tmp_path / "cellar")["name"], get(hub, "attic").problem) == ("cellar", "")
        rename(hub, "attic", "attic")
        assert mark(tmp_path / "cellar")["name"] == "attic"

    def test_rename_holds_while_the_folder_hangs(
        self, hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(hub, tmp_path / "cellar")
        monkeypatch.setattr(repository_states, "LOOK_S", 0.2)
        monkeypatch.setattr(manage_repositories, "CHANGE_S", 0.2)
        with hanging(tmp_path / "cellar"):
            assert rename(hub, "cellar", "attic").name == "attic"

    def test_taken_name_is_refused(self, hub: RunningHub, tmp_path: Path) -> None:
        create(hub, tmp_path / "cellar")
        code, reason, facts = refusal(lambda: rename(hub, "cellar", "default"))
        assert (code, reason, facts["name"]) == (
            Code.ALREADY_EXISTS,
            "REPOSITORY_EXISTS",
            "default",
        )
        assert mark(tmp_path / "cellar")["name"] == "cellar"

    @pytest.mark.parametrize("name", ["", "..", "a/b", "ü", "x" * 65])
    def test_unusable_name_is_refused(self, hub: RunningHub, name: str) -> None:
        assert refusal(lambda: rename(hub, "default", name))[0] == Code.INVALID_ARGUMENT
        assert [one.name for one in listed(hub)] == ["default"]


class TestDefaultAndDisabled:
    def test_backups_that_name_none_go_to_the_default(
        self, hub: RunningHub, agent: FakeAgent, tmp_path: Path
    ) -> None:
        create(hub, tmp_path / "cellar")
        assert set_default(hub, "cellar").is_default
        assert [(one.name, one.is_default) for one in listed(hub)] == [
            ("cellar", True),
            ("default", False),
        ]
        assert hub.start().repository_name == "cellar"

    def test_disabled_repository_takes_no_new_backup_and_ends_the_running_one(
        self, hub: RunningHub, agent: FakeAgent
    ) -> None:
        job = hub.start(request_id="r-1")
        agent.expect("start_job")
        for _ in range(2):  # repeating changes nothing
            assert disable(hub, "default").disabled
        assert refusal(lambda: hub.start("pgtest1"))[:2] == (
            Code.FAILED_PRECONDITION,
            "REPOSITORY_DISABLED",
        )
        assert hub.start(request_id="r-1").job_id == job.job_id
        agent.run_job(job.job_id, [FakeDisk("AB.C")])
        assert hub.wait(job.job_id).status == backup_pb2.BACKUP_STATUS_COMPLETED
        assert hub.restored(job.job_id)
        for _ in range(2):
            assert not enable(hub, "default").disabled
        assert hub.start().job_id != job.job_id

    def test_disabled_repository_is_not_made_the_default(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        create(hub, tmp_path / "cellar")
        disable(hub, "cellar")
        assert refusal(lambda: set_default(hub, "cellar"))[:2] == (
            Code.FAILED_PRECONDITION,
            "REPOSITORY_DISABLED",
        )
        assert get(hub, "default").is_default

    def test_disabled_and_default_last_over_a_restart(
        self, settings: HubSettings, tmp_path: Path
    ) -> None:
        for round_ in ("first", "second"):
            with (
                Hub(settings) as running,
                grpc.insecure_channel(str(running.address)) as channel,
            ):
                hub = RunningHub(running, channel)
                if round_ == "first":
                    create(hub, tmp_path / "cellar", make_default=True)
                    disable(hub, "default")
                assert [(one.name, one.is_default, one.disabled) for one in listed(hub)] == [
                    ("cellar", True, False),
                    ("default", False, True),
                ]


class TestDelete:
    def test_empty_repository_goes_with_its_folder(self, hub: RunningHub, tmp_path: Path) -> None:
        made = create(hub, tmp_path / "cellar")
        deleted = delete(hub)
        assert (deleted.repository_id, deleted.problem) == (made.repository_id, "")
        assert not (tmp_path / "cellar").exists()
        assert [one.name for one in listed(hub)] == ["default"]
        # Its name and its folder are free again.
        assert create(hub, tmp_path / "cellar").problem == ""

    def test_folder_with_anything_else_in_it_keeps_its_mark_and_can_be_adopted(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        made = create(hub, tmp_path / "cellar")
        (tmp_path / "cellar" / "photos").mkdir()
        problem = delete(hub).problem
        assert f"the mark {MARK} stays" in problem
        assert "'photos'" in problem
        assert [one.name for one in listed(hub)] == ["default"]
        assert {path.name for path in (tmp_path / "cellar").iterdir()} == {MARK, "photos"}
        adopted = create(hub, tmp_path / "cellar", "again")
        assert (adopted.repository_id, adopted.problem) == (made.repository_id, "")

    def test_restore_points_of_another_hub_outlive_the_deletion(
        self, hub: RunningHub, agent: FakeAgent, tmp_path: Path
    ) -> None:
        """A second catalog that adopts the folder, as an older copy does, knows none of them."""
        job = backed_up(hub, agent)
        folder = get(hub, "default").path
        settings = HubSettings(
            listen="127.0.0.1:0",
            catalog_url=f"sqlite:///{tmp_path / 'second.db'}",
            state_dir=tmp_path / "second",
        )
        settings.state_dir.mkdir()
        catalog = Catalog(settings.catalog_url)
        catalog.upgrade()
        catalog.close()
        with Hub(settings) as running, grpc.insecure_channel(str(running.address)) as channel:
            second = RunningHub(running, channel)
            create(second, Path(folder), "taken")
            assert f"the mark {MARK} stays" in delete(second, "taken").problem
            assert listed(second) == []
        assert get(hub, "default").problem == ""
        assert hub.restored(job.job_id)

    def test_folder_that_is_away_keeps_its_mark_and_can_be_adopted(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        made = create(hub, tmp_path / "cellar")
        (tmp_path / "cellar").rename(tmp_path / "away")
        assert "is it mounted" in delete(hub).problem
        assert [one.name for one in listed(hub)] == ["default"]
        (tmp_path / "away").rename(tmp_path / "cellar")
        assert create(hub, tmp_path / "cellar").repository_id == made.repository_id

    def test_folder_that_hangs_is_nobodys_until_its_mark_is_gone(
        self, hub: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A repository made of it meanwhile would lose its mark to the deletion."""
        create(hub, tmp_path / "cellar")
        monkeypatch.setattr(repository_states, "LOOK_S", 0.2)
        monkeypatch.setattr(manage_repositories, "CHANGE_S", 0.2)
        with hanging(tmp_path / "cellar"):
            delete(hub)
            assert [one.name for one in listed(hub)] == ["default"]
            code, reason, facts = refusal(lambda: create(hub, tmp_path / "cellar"))
            assert (code, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_UNUSABLE")
            assert "another request" in facts["problem"]

    def test_repository_with_backups_stays(self, hub: RunningHub, agent: FakeAgent) -> None:
        job = backed_up(hub, agent)
        code, reason, facts = refusal(lambda: delete(hub, "default"))
        assert (code, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_NOT_EMPTY")
        assert (facts["repository"], facts["contexts"]) == ("default", "1")
        assert get(hub, "default").problem == ""
        assert hub.restored(job.job_id)

    def test_default_one_stays_while_there_are_others_and_goes_as_the_last(
        self, hub: RunningHub, agent: FakeAgent, tmp_path: Path
    ) -> None:
        create(hub, tmp_path / "cellar")
        assert refusal(lambda: delete(hub, "default"))[:2] == (
            Code.FAILED_PRECONDITION,
            "REPOSITORY_IS_DEFAULT",
        )
        for name in ("cellar", "default"):
            delete(hub, name)
        assert listed(hub) == []
        assert refusal(hub.start)[:2] == (Code.NOT_FOUND, "REPOSITORY_NOT_FOUND")

    def test_files_of_deleted_backups_are_removed_before(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        made = create(hub, tmp_path / "cellar")
        left = tmp_path / "cellar" / "ctx" / "job-1"
        left.mkdir(parents=True)
        (left / "disk-0.qcow2").touch()
        with hub.parts.catalog.write() as session:
            request_removals(session, made.repository_id, [("job-1", "ctx/job-1")], NOON)
        delete(hub)
        assert not (tmp_path / "cellar").exists()

    def test_repository_with_files_that_cannot_be_removed_stays(
        self, hub: RunningHub, tmp_path: Path
    ) -> None:
        made = create(hub, tmp_path / "cellar")
        with hub.parts.catalog.write() as session:
            request_removals(session, made.repository_id, [("job-1", "ctx/job-1")], NOON)
        (tmp_path / "cellar").rename(tmp_path / "away")
        code, reason, facts = refusal(lambda: delete(hub))
        assert (code, reason) == (Code.FAILED_PRECONDITION, "REPOSITORY_NOT_EMPTY")
        assert "still to be removed" in facts["problem"]
        (tmp_path / "away").rename(tmp_path / "cellar")
        delete(hub)
        assert not (tmp_path / "cellar").exists()
