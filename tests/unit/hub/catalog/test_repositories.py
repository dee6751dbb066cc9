"""Repositories in the catalog: one default, names, use, deletion; races with backups that start."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, event, select
from sqlalchemy.orm import Session

from hub.catalog.change_repositories import (
    delete_repository,
    rename_repository,
    set_default_repository,
    set_disabled,
)
from hub.catalog.delete_jobs import delete_job
from hub.catalog.engine import Catalog
from hub.catalog.models import BackupRepository, FileRemoval, VmBackupContext
from hub.catalog.repositories import (
    RepositoryUse,
    add_repository,
    all_repositories,
    find_repository,
    free_repository_id,
    list_repositories,
    use_of,
)
from hub.catalog.start_job import start_job
from hub.errors import (
    NoDefaultRepository,
    RepositoryDisabled,
    RepositoryExists,
    RepositoryIsDefault,
    RepositoryNotEmpty,
    RepositoryNotFound,
)
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.states import BackupType
from shared.errors import InvalidArgument, SendenseError
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.catalog.story import PGTEST, Story

WAIT_S = 30
# Long enough for a thread that does not wait to be done.
LOOK_S = 0.3


def add(catalog: Catalog, name: str, *, default: bool = False) -> BackupRepository:
    with catalog.write() as session:
        return add_repository(
            session,
            repository_id=f"repo-{name}",
            name=name,
            path=f"/srv/{name}",
            default=default,
            now=NOON,
        )


def defaults(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [row.name for row in all_repositories(session) if row.is_default]


def contexts(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return list(session.scalars(select(VmBackupContext.repository_id)))


class TestDefault:
    def test_first_repository_is_the_default_until_another_one_is_made_it(
        self, catalog: Catalog
    ) -> None:
        assert defaults(catalog) == ["default"]
        with catalog.write() as session:
            assert set_default_repository(session, "repo-other").is_default
        assert defaults(catalog) == ["other"]
        assert add(catalog, "third", default=True).is_default
        assert defaults(catalog) == ["third"]
        assert not add(catalog, "fourth").is_default
        assert defaults(catalog) == ["third"]

    def test_disabled_repository_is_not_made_the_default(self, catalog: Catalog) -> None:
        with catalog.write() as session:
            set_disabled(session, "repo-other", True)
        with pytest.raises(RepositoryDisabled), catalog.write() as session:
            set_default_repository(session, "repo-other")
        assert defaults(catalog) == ["default"]

    def test_default_repository_may_be_disabled_and_stays_it(self, catalog: Catalog) -> None:
        with catalog.write() as session:
            assert set_disabled(session, "repo-default", True).is_default
        assert defaults(catalog) == ["default"]

    def test_unknown_repository_is_not_found(self, catalog: Catalog) -> None:
        for change in (set_default_repository, delete_repository):
            with pytest.raises(RepositoryNotFound), catalog.write() as session:
                change(session, "repo-x")
        with pytest.raises(RepositoryNotFound), catalog.write() as session:
            set_disabled(session, "repo-x", True)
        assert defaults(catalog) == ["default"]

    def test_exactly_one_is_the_default_after_a_race(self, catalog: Catalog) -> None:
        names = [add(catalog, f"r{number}").id for number in range(4)]
        barrier = threading.Barrier(8)

        @retry_catalog
        def make_default(repository_id: str) -> None:
            with catalog.write() as session:
                set_default_repository(session, repository_id)

        @retry_catalog
        def make_new(name: str) -> None:
            add(catalog, name, default=True)

        def race(change: Callable[[str], None], name: str) -> None:
            barrier.wait(WAIT_S)
            change(name)

        with ThreadPoolExecutor(8) as pool:
            # Ids before and after those that are there.
            begun = [pool.submit(race, make_new, f"{letter}-new") for letter in "amqz"]
            begun += [pool.submit(race, make_default, name) for name in names]
            for one in begun:
                one.result(WAIT_S)
        assert len(defaults(catalog)) == 1
        with catalog.read() as session:
            assert len(all_repositories(session)) == 10

    @pytest.mark.parametrize("first", ["made", "set"])
    def test_later_one_of_two_that_both_become_the_default_is_it(
        self, catalog: Catalog, first: str
    ) -> None:
        def make(session: Session) -> None:
            add_repository(
                session, repository_id="a", name="a", path="/srv/a", default=True, now=NOON
            )

        def change(session: Session) -> None:
            set_default_repository(session, "repo-other")

        @retry_catalog
        def second() -> None:
            with catalog.write() as session:
                (change if first == "made" else make)(session)

        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                (make if first == "made" else change)(session)
                waiting = pool.submit(second)
                with pytest.raises(TimeoutError):
                    waiting.result(LOOK_S)
            waiting.result(WAIT_S)
        assert defaults(catalog) == ["other" if first == "made" else "a"]

    def test_second_of_two_first_repositories_is_not_the_default(
        self, empty_catalog: Callable[[], Catalog]
    ) -> None:
        catalog = empty_catalog()
        catalog.upgrade()
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                add_repository(
                    session, repository_id="m", name="m", path="/srv/m", default=False, now=NOON
                )
                waiting = pool.submit(add, catalog, "a")
                with pytest.raises(TimeoutError):
                    waiting.result(LOOK_S)
            assert not waiting.result(WAIT_S).is_default
        assert defaults(catalog) == ["m"]


class TestNames:
    def test_renamed_repository_keeps_its_id_and_folder(self, catalog: Catalog) -> None:
        with catalog.read() as session:
            before = find_repository(session, "other")
        with catalog.write() as session:
            rename_repository(session, "repo-other", "cellar")
        with catalog.read() as session:
            after = find_repository(session, "cellar")
            with pytest.raises(RepositoryNotFound):
                find_repository(session, "other")
        assert (after.id, after.path) == (before.id, before.path)

    def test_its_own_name_and_its_own_id_are_free_for_a_repository(self, catalog: Catalog) -> None:
        for name in ("other", "repo-other"):
            with catalog.write() as session:
                assert rename_repository(session, "repo-other", name).name == name

    def test_taken_name_is_refused(self, catalog: Catalog) -> None:
        with pytest.raises(RepositoryExists) as caught, catalog.write() as session:
            rename_repository(session, "repo-other", "default")
        assert caught.value.name == "default"
        with catalog.read() as session:
            assert find_repository(session, "other").id == "repo-other"

    def test_id_of_another_one_is_no_name(self, catalog: Catalog) -> None:
        with pytest.raises(InvalidArgument, match="is the id of"), catalog.write() as session:
            rename_repository(session, "repo-other", "repo-default")
        with pytest.raises(InvalidArgument, match="is the id of"):
            add(catalog, "repo-default")

    def test_name_of_another_one_is_no_id(self, catalog: Catalog) -> None:
        with catalog.read() as session:
            expected = free_repository_id(session, "new", NOON)
        add(catalog, expected)
        with catalog.read() as session:
            assert free_repository_id(session, "new", NOON) == f"{expected}-2"

    def test_names_that_differ_in_case_are_two(self, catalog: Catalog) -> None:
        with catalog.write() as session:
            assert rename_repository(session, "repo-other", "Default").name == "Default"
        with catalog.read() as session:
            assert find_repository(session, "default").id == "repo-default"

    def test_one_of_two_gets_a_name_that_both_want(self, catalog: Catalog) -> None:
        def second() -> None:
            with catalog.write() as session:
                rename_repository(session, "repo-other", "cellar")

        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                rename_repository(session, "repo-default", "cellar")
                waiting = pool.submit(second)
                with pytest.raises(TimeoutError):
                    waiting.result(LOOK_S)
            with pytest.raises(RepositoryExists):
                waiting.result(WAIT_S)
        with catalog.read() as session:
            assert find_repository(session, "cellar").id == "repo-default"
            assert find_repository(session, "other").id == "repo-other"

    def test_one_of_two_records_a_name_that_both_want(self, catalog: Catalog) -> None:
        def second() -> None:
            with catalog.write() as session:
                add_repository(
                    session,
                    repository_id="repo-2",
                    name="new",
                    path="/srv/second",
                    default=False,
                    now=NOON,
                )

        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                first = add_repository(
                    session,
                    repository_id="repo-1",
                    name="new",
                    path="/srv/first",
                    default=False,
                    now=NOON,
                )
                waiting = pool.submit(second)
                with pytest.raises(TimeoutError):
                    waiting.result(LOOK_S)
            with pytest.raises(RepositoryExists):
                waiting.result(WAIT_S)
        with catalog.read() as session:
            assert find_repository(session, "new").id == first.id


class TestListAndUse:
    def test_pages_come_in_the_order_of_names(self, catalog: Catalog) -> None:
        for name in ("b", "a", "Z", "zz"):
            add(catalog, name)
        token, names = "", []
        with catalog.read() as session:
            while True:
                rows, token = list_repositories(session, page_size=4, page_token=token)
                names.append([row.name for row in rows])
                if not token:
                    break
            # A page that is full is the last one when nothing follows.
            assert list_repositories(session, page_size=6)[1] == ""
        assert names == [["Z", "a", "b", "default"], ["other", "zz"]]

    @pytest.mark.parametrize("token", ["?", "WzFd", "WyJhIiwgImIiXQ=="])
    def test_foreign_token_is_refused(self, catalog: Catalog, token: str) -> None:
        with pytest.raises(InvalidArgument, match="token"), catalog.read() as session:
            list_repositories(session, page_token=token)

    def test_use_is_summed_over_the_contexts_in_one_query(self, catalog: Catalog) -> None:
        add(catalog, "empty")
        big = 1 << 62
        with catalog.write() as session:
            for number, (repository, points, stored) in enumerate(
                [("default", 3, big), ("default", 0, 0), ("other", 2, 7)]
            ):
                session.add(
                    VmBackupContext(
                        context_id=f"ctx-{number}",
                        vm_name="pgtest1",
                        vmware_vm_id="vm-1",
                        instance_uuid=f"uuid-{number}",
                        site="lab",
                        repository_id=f"repo-{repository}",
                        restore_point_count=points,
                        bytes_stored=stored,
                        created_at=NOON,
                    )
                )
        asked: list[str] = []
        with catalog.read() as session:
            session.connection()
            event.listen(catalog.engine, "before_cursor_execute", lambda *of: asked.append(of[2]))
            assert use_of(session, ["repo-default", "repo-other", "repo-empty"]) == {
                "repo-default": RepositoryUse(2, 3, big),
                "repo-other": RepositoryUse(1, 2, 7),
            }
            assert len(asked) == 1
            assert use_of(session, []) == {}


class TestDeletion:
    def test_empty_repository_goes(self, catalog: Catalog) -> None:
        with catalog.write() as session:
            delete_repository(session, "repo-other")
        with catalog.read() as session:
            assert [row.name for row in all_repositories(session)] == ["default"]

    def test_repository_with_a_context_stays(self, story: Story) -> None:
        story.fail(story.start(repository="repo-other"))
        with pytest.raises(RepositoryNotEmpty) as caught, story.catalog.write() as session:
            delete_repository(session, "repo-other")
        assert (caught.value.repository, caught.value.contexts) == ("other", 1)
        assert "'other' still has 1 context with 1 job; delete each" in str(caught.value)

    def test_contexts_without_jobs_are_said_to_be_in_the_way(self, story: Story) -> None:
        for instance_uuid in ("uuid-1", "uuid-2"):
            vm = replace(PGTEST, instance_uuid=instance_uuid)
            job = story.start(vm, repository="repo-other")
            story.fail(job)
            with story.catalog.write() as session:
                delete_job(session, job.id, now=story.now())
                session.execute(delete(FileRemoval))
        with pytest.raises(RepositoryNotEmpty) as caught, story.catalog.write() as session:
            delete_repository(session, "repo-other")
        said = str(caught.value)
        assert "'other' still has 2 contexts without jobs" in said
        assert "sendense context delete, also one without jobs" in said

    def test_repository_with_files_to_remove_stays(self, catalog: Catalog) -> None:
        with catalog.write() as session:
            session.add(
                FileRemoval(
                    repository_id="repo-other", job_id="job-1", path="c/job-1", requested_at=NOON
                )
            )
        with pytest.raises(RepositoryNotEmpty, match="removed"), catalog.write() as session:
            delete_repository(session, "repo-other")
        with catalog.read() as session:
            assert find_repository(session, "other")

    def test_default_one_stays_while_there_are_others_and_goes_as_the_last(
        self, catalog: Catalog
    ) -> None:
        with pytest.raises(RepositoryIsDefault), catalog.write() as session:
            delete_repository(session, "repo-default")
        for repository_id in ("repo-other", "repo-default"):
            with catalog.write() as session:
                delete_repository(session, repository_id)
        with catalog.read() as session:
            assert all_repositories(session) == []
            with pytest.raises(NoDefaultRepository):
                find_repository(session, "")
        assert add(catalog, "again").is_default

    def test_default_stays_one_when_a_repository_is_added_while_the_last_one_goes(
        self, catalog: Catalog
    ) -> None:
        with catalog.write() as session:
            delete_repository(session, "repo-other")
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                delete_repository(session, "repo-default")
                adding = pool.submit(add, catalog, "new")
                with pytest.raises(TimeoutError):
                    adding.result(LOOK_S)
            assert adding.result(WAIT_S).is_default


class TestBackupsThatStart:
    """One of the two wins: no job in a repository that is gone, none after it was disabled."""

    def second(self, pool: ThreadPoolExecutor, work: Callable[[], object]) -> "Future[object]":
        """Begins while the transaction of the first one is open, and waits for its end."""
        waiting = pool.submit(work)
        with pytest.raises(TimeoutError):
            waiting.result(LOOK_S)
        return waiting

    def change(self, catalog: Catalog, how: Callable[..., object], *more: object) -> None:
        with catalog.write() as session:
            how(session, "repo-other", *more)

    def test_start_that_was_first_keeps_the_repository(self, story: Story) -> None:
        catalog = story.catalog
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                begin(session)
                deletion = self.second(pool, lambda: self.change(catalog, delete_repository))
            with pytest.raises(RepositoryNotEmpty):
                deletion.result(WAIT_S)
        assert contexts(catalog) == ["repo-other"]

    def test_deletion_that_was_first_leaves_nothing_to_the_start(self, story: Story) -> None:
        catalog = story.catalog
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                delete_repository(session, "repo-other")
                start = self.second(pool, lambda: story.start(repository="repo-other"))
            with pytest.raises(RepositoryNotFound):
                start.result(WAIT_S)
        assert contexts(catalog) == []

    def test_start_that_was_first_goes_on_in_a_disabled_repository(self, story: Story) -> None:
        catalog = story.catalog
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                begin(session)
                change = self.second(pool, lambda: self.change(catalog, set_disabled, True))
            change.result(WAIT_S)
        assert contexts(catalog) == ["repo-other"]

    def test_disabling_that_was_first_refuses_the_start(self, story: Story) -> None:
        catalog = story.catalog
        with ThreadPoolExecutor(1) as pool:
            with catalog.write() as session:
                set_disabled(session, "repo-other", True)
                start = self.second(pool, lambda: story.start(repository="repo-other"))
            with pytest.raises(RepositoryDisabled):
                start.result(WAIT_S)
        assert contexts(catalog) == []
        self.change(catalog, set_disabled, False)
        assert story.start(repository="repo-other").repository_id == "repo-other"

    def test_race_has_one_winner(self, story: Story) -> None:
        catalog = story.catalog
        for number in range(5):
            add(catalog, f"race-{number}")
            barrier = threading.Barrier(2)

            def start(repository: str, barrier: threading.Barrier = barrier) -> str:
                barrier.wait(WAIT_S)
                try:
                    return retry_catalog(story.start)(repository=repository).id
                except RepositoryNotFound:
                    return ""

            def delete(repository: str, barrier: threading.Barrier = barrier) -> bool:
                @retry_catalog
                def go() -> None:
                    with catalog.write() as session:
                        delete_repository(session, repository)

                barrier.wait(WAIT_S)
                try:
                    go()
                except RepositoryNotEmpty:
                    return False
                return True

            with ThreadPoolExecutor(2) as pool:
                repository = f"repo-race-{number}"
                started = pool.submit(start, repository)
                deleted = pool.submit(delete, repository)
                assert bool(started.result(WAIT_S)) is not deleted.result(WAIT_S)
            with catalog.read() as session:
                left = {row.id for row in all_repositories(session)}
            assert (repository in left) is bool(started.result())
            assert (repository in contexts(catalog)) is bool(started.result())


def begin(session: Session) -> None:
    """A backup starts into "other"; the caller commits."""
    start_job(
        session,
        vm=PGTEST,
        repository_id="repo-other",
        requested_type=BackupType.FULL,
        quiesce=False,
        request_id="",
        now=NOON,
    )


def test_folders_of_repositories_do_not_lie_in_one_another(
    catalog: Catalog, tmp_path: Path
) -> None:
    for path in (tmp_path / "other" / "in", tmp_path):
        with pytest.raises(SendenseError, match="lies in or around"), catalog.write() as session:
            add_repository(
                session, repository_id="r", name="r", path=str(path), default=False, now=NOON
            )
