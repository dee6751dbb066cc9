"""What the report tells of a dry run: the ids that jobs get, and every fault of a row at once."""

import io

import pytest
from rich.console import Console
from sqlalchemy import select

from hub.catalog.legacy.write import ids_of_new_jobs
from hub.catalog.models import BackupJob
from hub.legacy.apply import apply_plan
from hub.legacy.planned import ImportPlan
from hub.legacy.report import report_document, show_report
from tests.unit.hub.legacy.conftest import Importer, left_out
from tests.unit.hub.legacy.old_system import FIRST, VM, OldSystem, disk_id, group_id, qemu_img


@pytest.fixture
def chained(old: OldSystem) -> OldSystem:
    """2 backups of 2 disks, whose rows name the layers below."""
    old.add_context()
    old.add_repository()
    old.add_backups(runs=2, disks=2, parents="chain")
    return old


def planned_ids(importer: Importer, plan: ImportPlan) -> dict[str, str]:
    with importer.parts.catalog.read() as session:
        return ids_of_new_jobs(session, plan.contexts)


def told(plan: ImportPlan, ids: dict[str, str]) -> str:
    page = io.StringIO()
    show_report(plan, None, ids, Console(file=page, width=10_000))
    return page.getvalue()


def test_dry_run_tells_the_ids_that_apply_gives(old: OldSystem, importer: Importer) -> None:
    old.add_context()
    old.add_repository()
    old.add_backups(runs=2, disks=1)
    old.row(1, 0)["parent_backup_id"] = "ü-1"
    plan = importer.plan()
    ids = planned_ids(importer, plan)
    page = told(plan, ids)
    made = old.row(1, 0)["created_at"]
    assert ids == {group_id(0): group_id(0), "ü-1": f"backup-{VM}-{int(made.timestamp())}"}
    (line,) = [each for each in page.splitlines() if ids["ü-1"] in each]
    assert "its old id is ü-1" in line
    jobs = report_document(plan, None, ids)["contexts"][0]["jobs"]
    assert [(job["job_id"], job["planned_job_id"]) for job in jobs] == [
        ("", ids[group_id(0)]),
        ("", ids["ü-1"]),
    ]
    written = apply_plan(importer.parts, plan)
    with importer.parts.catalog.read() as session:
        assert set(session.scalars(select(BackupJob.id))) == set(ids.values())
    jobs = report_document(plan, written, ids)["contexts"][0]["jobs"]
    assert [job["job_id"] for job in jobs] == list(ids.values())


def test_ids_of_two_vms_that_would_be_the_same_differ(old: OldSystem, importer: Importer) -> None:
    old.add_repository()
    for name in ("wüb", "wub"):
        old.add_context(context_id=f"ctx-{len(name.encode())}", vm_name=name, vmware_vm_id=name)
        old.add_backups(runs=1, disks=1, vm=name)
        for row in old.jobs:
            row["parent_backup_id"] = None
            row["created_at"] = FIRST
    for number, row in enumerate(old.jobs):
        row["id"] = f"ü-{number}"
    plan = importer.plan()
    ids = planned_ids(importer, plan)
    assert len(ids) == 2 and len(set(ids.values())) == 2
    apply_plan(importer.parts, plan)
    with importer.parts.catalog.read() as session:
        assert set(session.scalars(select(BackupJob.id))) == set(ids.values())


def test_wrong_backing_file_is_told_beside_the_missing_row(
    chained: OldSystem, importer: Importer
) -> None:
    chained.jobs.remove(chained.row(1, 1))
    wrong = chained.file(0, 1)
    file = chained.file(1, 0)
    qemu_img("rebase", "-u", "-b", str(wrong), "-F", "qcow2", str(file))
    plan = importer.plan()
    reason = left_out(plan)[disk_id(1, 0)]
    assert "is the layer below it, and no id with the same beginning is of disk 1" in reason
    assert f"; besides, {file}: builds on {wrong}" in reason
    assert f"its recorded parent is {disk_id(0, 0)}" in reason
    assert disk_id(1, 0) not in reason.partition(";")[0]


def test_row_whose_file_is_whole_has_its_own_reason_alone(
    chained: OldSystem, importer: Importer
) -> None:
    chained.jobs.remove(chained.row(1, 1))
    assert "besides" not in left_out(importer.plan())[disk_id(1, 0)]


def test_reason_names_the_row_to_the_others_of_its_backup_alone(
    chained: OldSystem, importer: Importer
) -> None:
    chained.file(1, 0).unlink()
    reasons = left_out(importer.plan())
    assert reasons[disk_id(1, 0)].startswith(f"{chained.file(1, 0)}: is not there")
    assert (
        reasons[disk_id(1, 1)] == f"disk 0 (backup_jobs {disk_id(1, 0)}): {reasons[disk_id(1, 0)]}"
    )
