"""Which VMs have a restore point, as the contexts tell it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import event

from hub.catalog.engine import Catalog
from hub.catalog.models import VmBackupContext
from hub.catalog.protection import LastBackup, protected_vms
from tests.unit.hub.catalog.conftest import NOON

Add = Callable[..., None]


@pytest.fixture
def add(catalog: Catalog) -> Add:
    """`add(uuid, site=..., repository=..., points=..., job=..., after_s=...)` stores a context."""

    def add(
        uuid: str,
        *,
        site: str = "lab",
        repository: str = "repo-default",
        points: int = 1,
        job: str | None = "job-1",
        at: datetime | None = NOON,
    ) -> None:
        with catalog.write() as session:
            session.add(
                VmBackupContext(
                    context_id=f"{site}-{uuid}-{repository}",
                    vm_name="pgtest1",
                    vmware_vm_id="vm-1",
                    instance_uuid=uuid,
                    site=site,
                    repository_id=repository,
                    restore_point_count=points,
                    last_backup_id=job,
                    last_backup_at=at,
                    created_at=NOON,
                )
            )

    return add


def test_vm_with_a_restore_point_is_protected(catalog: Catalog, add: Add) -> None:
    add("uuid-1")
    add("uuid-2", points=0, job=None, at=None)
    with catalog.read() as session:
        assert protected_vms(session) == {("lab", "uuid-1"): LastBackup("job-1", NOON)}


@pytest.mark.parametrize("newer", ["repo-default", "repo-other"])
def test_newest_backup_counts_over_all_repositories(catalog: Catalog, add: Add, newer: str) -> None:
    for repository in ("repo-default", "repo-other"):
        late = timedelta(seconds=1 if repository == newer else 0)
        add("uuid-1", repository=repository, job=repository, at=NOON + late)
    with catalog.read() as session:
        found = protected_vms(session)
    assert found == {("lab", "uuid-1"): LastBackup(newer, NOON + timedelta(seconds=1))}


def test_emptied_context_does_not_hide_another_ones_restore_point(
    catalog: Catalog, add: Add
) -> None:
    add("uuid-1", repository="repo-default", job="kept")
    add("uuid-1", repository="repo-other", points=0, job="gone", at=NOON + timedelta(days=1))
    with catalog.read() as session:
        assert protected_vms(session) == {("lab", "uuid-1"): LastBackup("kept", NOON)}


def test_instance_uuid_is_one_in_any_case_and_of_its_site_alone(catalog: Catalog, add: Add) -> None:
    add("50AB-Cd", repository="repo-default")
    add("50ab-cd", repository="repo-other", job="job-2", at=NOON + timedelta(seconds=1))
    add("50ab-cd", site="Lab", job="job-3")
    later = LastBackup("job-2", NOON + timedelta(seconds=1))
    with catalog.read() as session:
        assert protected_vms(session) == {
            ("lab", "50ab-cd"): later,
            ("Lab", "50ab-cd"): LastBackup("job-3", NOON),
        }
        assert protected_vms(session, "lab") == {("lab", "50ab-cd"): later}
        assert protected_vms(session, "elsewhere") == {}


def test_restore_point_without_a_time_protects_and_is_the_oldest(
    catalog: Catalog, add: Add
) -> None:
    add("uuid-1", repository="repo-default", job="timeless", at=None)
    add("uuid-2", repository="repo-default", job=None, at=None)
    add("uuid-1", repository="repo-other", job="timed")
    with catalog.read() as session:
        assert protected_vms(session) == {
            ("lab", "uuid-1"): LastBackup("timed", NOON),
            ("lab", "uuid-2"): LastBackup("", None),
        }


def test_context_without_an_instance_uuid_protects_no_vm(catalog: Catalog, add: Add) -> None:
    add("")
    with catalog.read() as session:
        assert protected_vms(session) == {}


def test_one_query_answers_for_all_vms(catalog: Catalog, add: Add) -> None:
    for number in range(20):
        add(f"uuid-{number}")
    asked: list[str] = []
    with catalog.read() as session:
        session.connection()
        event.listen(catalog.engine, "before_cursor_execute", lambda *of: asked.append(of[2]))
        assert len(protected_vms(session)) == 20
    assert len(asked) == 1
