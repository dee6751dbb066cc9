"""What a deletion would remove of another system's files is known before a row is touched."""

import pytest
from sqlalchemy import select, update

from hub.catalog.delete_jobs import delete_job
from hub.catalog.imported_layers import (
    ImportedLayers,
    imported_layers_of_context,
    imported_layers_of_job,
)
from hub.catalog.models import BackupDisk, BackupJob
from hub.errors import ContextNotFound, JobHasDependants, JobNotEnded, JobNotFound
from hub.jobs.states import BackupType
from tests.unit.hub.catalog.conftest import NOON
from tests.unit.hub.catalog.story import Story, frozen


@pytest.fixture
def jobs(story: Story) -> list[BackupJob]:
    """Two imported jobs of two disks, a chain, and a full of the hub's own after them."""
    both = [story.whole(frozen(0), frozen(1)) for _ in range(2)]
    with story.catalog.write() as session:
        session.execute(update(BackupJob).values(imported_at=NOON))
        for disk in session.scalars(select(BackupDisk)):
            disk.legacy_id = f"old-{disk.id}"
            disk.qcow2_path = f"old/{disk.backup_job_id}-{disk.disk_index}"
    return [*both, story.whole(frozen(0), frozen(1), kind=BackupType.FULL)]


def of_job(story: Story, job: BackupJob, *, cascade: bool = False) -> ImportedLayers:
    with story.catalog.read() as session:
        return imported_layers_of_job(session, job.id, cascade=cascade)


def layers(*jobs: BackupJob) -> dict[str, str]:
    return {f"old/{job.id}-{disk}": job.id for job in jobs for disk in (0, 1)}


def test_layers_of_a_job_are_its_imported_files(story: Story, jobs: list[BackupJob]) -> None:
    first, second, own = jobs
    found = of_job(story, second)
    assert found.jobs == layers(second)
    assert found.leaving == set(found.jobs)
    assert found.own_folders == {own.vm_backup_context_id}
    assert found.repository.id == "repo-default"
    assert of_job(story, first, cascade=True).jobs == layers(first, second)
    assert of_job(story, own).jobs == {}


def test_layers_of_a_context_are_those_of_all_its_imported_jobs(
    story: Story, jobs: list[BackupJob]
) -> None:
    with story.catalog.read() as session:
        found = imported_layers_of_context(session, jobs[0].vm_backup_context_id)
    assert found.jobs == layers(*jobs[:2])


def test_files_of_earlier_deletions_are_leaving_too(story: Story, jobs: list[BackupJob]) -> None:
    first, second, _ = jobs
    with story.catalog.write() as session:
        delete_job(session, second.id, now=NOON)
    found = of_job(story, first)
    assert found.jobs == layers(first)
    assert found.leaving == {*layers(first), *layers(second)}


def test_what_is_not_deleted_has_no_layers_that_go(story: Story, jobs: list[BackupJob]) -> None:
    with pytest.raises(JobHasDependants):
        of_job(story, jobs[0])
    live = story.start()
    with pytest.raises(JobNotEnded):
        of_job(story, live)
    with story.catalog.read() as session:
        with pytest.raises(JobNotEnded):
            imported_layers_of_context(session, live.vm_backup_context_id)
        with pytest.raises(JobNotFound):
            imported_layers_of_job(session, "nobody", cascade=True)
        with pytest.raises(ContextNotFound):
            imported_layers_of_context(session, "nowhere")
