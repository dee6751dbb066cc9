"""What an import would make, made, and left out: as tables for people and as one JSON document."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console

from hub.catalog.legacy.write import WrittenContext
from hub.legacy.planned import ImportPlan, PlannedContext, PlannedDisk, PlannedJob
from sendense.cli.tables import Column, number, show_table, words
from sendense.cli.text import size

# A pipe has no width: lines are not folded for it.
_PIPE_WIDTH = 100_000


def show_report(
    plan: ImportPlan,
    written: Sequence[WrittenContext] | None,
    planned_ids: Mapping[str, str],
    console: Console | None = None,
) -> None:
    """Print the tables; `written` is None for a dry run.

    `planned_ids` are the ids that new jobs would get, by their keys.
    """
    console = console or _console()
    for place in plan.new_places:
        verb = "would become" if written is None else "is now"
        console.print(f"{place.root} {verb} the repository {place.name!r}.", highlight=False)
    _show_contexts(console, plan)
    _show_disks(console, plan, {**planned_ids, **_job_ids(written)})
    _show_left_out(console, plan)
    console.print(_summary(plan, written), highlight=False)


def report_document(
    plan: ImportPlan,
    written: Sequence[WrittenContext] | None,
    planned_ids: Mapping[str, str],
) -> Mapping[str, Any]:
    """The same, for programs; docs/import.md names the fields."""
    job_ids = _job_ids(written)
    new_jobs = [job for context in plan.contexts for job in context.new_jobs]
    return {
        "applied": written is not None,
        "complete": plan.is_complete,
        "new_repositories": [
            {"name": place.name, "path": str(place.root), "old_id": place.old_id}
            for place in plan.new_places
        ],
        "contexts": [
            _context(context, written or (), job_ids, planned_ids) for context in plan.contexts
        ],
        "left_out": [
            {
                "table": ref.table,
                "id": ref.row_id,
                "vm_name": row.vm_name,
                "old_repository_id": row.repository_id,
                "old_backup": row.backup,
                "reason": row.reason,
                "was_unsuccessful": row.is_unsuccessful,
            }
            for row in plan.left_out
            for ref in row.refs
        ],
        "new_jobs": len(new_jobs),
        "new_disks": sum(len(job.disks) for job in new_jobs),
        "imported_before": sum(
            bool(job.existing_id) for context in plan.contexts for job in context.jobs
        ),
    }


def _context(
    context: PlannedContext,
    written: Sequence[WrittenContext],
    job_ids: Mapping[str, str],
    planned_ids: Mapping[str, str],
) -> dict[str, Any]:
    keys = {job.key for job in context.new_jobs}
    made = next((each.context_id for each in written if keys & each.job_ids.keys()), "")
    return {
        "vm_name": context.vm_name,
        "vmware_vm_id": context.moref,
        "instance_uuid": context.instance_uuid,
        "site": context.site,
        "repository": context.place.name,
        "old_context_id": context.old_id,
        "context_id": context.existing_id or made,
        "jobs": [_job(job, job_ids, planned_ids) for job in context.jobs],
    }


def _job(
    job: PlannedJob, job_ids: Mapping[str, str], planned_ids: Mapping[str, str]
) -> dict[str, Any]:
    job_id = job.existing_id or job_ids.get(job.key, "")
    return {
        "old_backup": job.key,
        "grouped_by": job.how,
        "job_id": job_id,
        "planned_job_id": job_id or planned_ids.get(job.key, ""),
        "imported_before": bool(job.existing_id),
        "backup_type": job.backup_type,
        "created_at": job.created_at.isoformat(),
        "disks": [_disk(disk) for disk in job.disks],
    }


def _disk(disk: PlannedDisk) -> dict[str, Any]:
    return {
        "legacy_id": disk.legacy_id,
        "disk_index": disk.disk_index,
        "backup_type": disk.backup_type,
        "builds_on": disk.base_legacy_id or "",
        "path": disk.path,
        "capacity_bytes": disk.capacity_bytes,
        "bytes_stored": disk.bytes_stored,
        "notes": list(disk.notes),
    }


def _show_contexts(console: Console, plan: ImportPlan) -> None:
    columns: list[str | Column] = [
        words("VM"),
        words("SITE"),
        words("REPOSITORY"),
        words("INSTANCE UUID", spare=1),
        number("NEW"),
        number("BEFORE"),
    ]
    rows = [
        [
            context.vm_name,
            context.site,
            context.place.name,
            context.instance_uuid,
            str(len(context.new_jobs)),
            str(len(context.jobs) - len(context.new_jobs)),
        ]
        for context in plan.contexts
    ]
    show_table(console, columns, rows, empty="No VM of the old catalog can be placed.")
    console.print()


def _show_disks(console: Console, plan: ImportPlan, job_ids: Mapping[str, str]) -> None:
    if not any(context.jobs for context in plan.contexts):
        return
    columns: list[str | Column] = [
        words("VM"),
        "BACKUP",
        Column("TOLD BY", spare=3),
        Column("CREATED", spare=2),
        number("DISK"),
        "TYPE",
        number("SIZE"),
        number("STORED"),
        Column("BUILDS ON", spare=1),
        Column("FILE", spare=4),
        words("NOTE"),
    ]
    rows = list(_disk_rows(plan, job_ids))
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    show_table(console, columns, rows, empty="")
    console.print()


def _disk_rows(plan: ImportPlan, job_ids: Mapping[str, str]) -> Iterator[list[str]]:
    for context in plan.contexts:
        names = {job.key: job.existing_id or job_ids.get(job.key, job.key) for job in context.jobs}
        holding = {disk.legacy_id: names[job.key] for job in context.jobs for disk in job.disks}
        for job in context.jobs:
            for disk in job.disks:
                notes = ["imported before"] if job.existing_id else []
                if job.wanted_id not in ("", names[job.key]):
                    notes.append(f"its old id is {job.wanted_id}")
                yield [
                    context.vm_name,
                    names[job.key],
                    job.how,
                    _when(job.created_at),
                    str(disk.disk_index),
                    disk.backup_type,
                    size(disk.capacity_bytes),
                    size(disk.bytes_stored),
                    holding.get(disk.base_legacy_id or "", ""),
                    disk.path,
                    "; ".join([*notes, *disk.notes]),
                ]


def _show_left_out(console: Console, plan: ImportPlan) -> None:
    rows = [
        [str(ref), row.vm_name, row.backup, row.reason] for row in plan.left_out for ref in row.refs
    ]
    if rows:
        console.print("Left out:", highlight=False)
        columns = [Column("ROW"), words("VM"), Column("BACKUP", spare=1), words("WHY")]
        show_table(console, columns, rows, empty="")
        console.print()


def _summary(plan: ImportPlan, written: Sequence[WrittenContext] | None) -> str:
    new = [job for context in plan.contexts for job in context.new_jobs]
    before = sum(len(context.jobs) for context in plan.contexts) - len(new)
    disks = sum(len(job.disks) for job in new)
    left_out = sum(len(row.refs) for row in plan.left_out)
    harmless = sum(len(row.refs) for row in plan.left_out if row.is_unsuccessful)
    verb = "would be imported" if written is None else "were imported"
    lines = [f"{len(new)} backups with {disks} disks {verb}, {before} were imported before."]
    if left_out:
        lines.append(
            f"{left_out} rows are left out, {harmless} of them of backups that had not succeeded."
        )
    if written is None and new:
        lines.append("Nothing was changed. Repeat the command with --apply to import.")
    return "\n".join(lines)


def _job_ids(written: Sequence[WrittenContext] | None) -> dict[str, str]:
    return {key: job_id for each in written or () for key, job_id in each.job_ids.items()}


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
