"""The import as a whole: old rows and their files, placed in our catalog or left out with a reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from hub.jobs.states import BackupType
from hub.legacy.chains import Restorable, restorable
from hub.legacy.grouping import Grouped, group
from hub.legacy.known import KnownCatalog, KnownContext, KnownDisk
from hub.legacy.layers import OldLayer, examine
from hub.legacy.old_catalog import LeftOut, OldCatalog, OldVm, row_refs
from hub.legacy.old_rows import FULL
from hub.legacy.places import NoPlace, Place, find_places
from hub.legacy.planned import ImportPlan, PlannedContext, PlannedDisk, PlannedJob
from hub.legacy.vms import Choices, NotPlaced, VmFinder


def make_plan(
    catalog: OldCatalog,
    known: KnownCatalog,
    choices: Choices,
    *,
    id_is_free: Callable[[str], bool],
    on_file: Callable[[int, int], None],
) -> ImportPlan:
    """Nothing is written. Raises ConfigurationError for choices that fit nothing, QemuMissing."""
    finder = VmFinder(catalog, known, choices)
    grouping = group(catalog)
    places = find_places(catalog, known.repositories, choices.repositories, id_is_free)
    examined, without_backup = examine(catalog, grouping, places, on_file)
    placed, left_out = restorable(examined)
    contexts: list[PlannedContext] = []
    refused: list[LeftOut] = []
    taken: dict[tuple[str, str, str], OldVm] = {}
    for vm, backups in sorted(placed.items()):
        place = places[vm.repository_id]
        assert not isinstance(place, NoPlace)
        try:
            context = _context(vm, backups, place, catalog, known, finder)
            identity = (context.site, context.instance_uuid, str(place.root))
            if identity in taken:
                raise NotPlaced(
                    f"another VM of the old catalog gets its context: {taken[identity].vm_name!r} "
                    f"in {taken[identity].repository_id!r}"
                )
        except NotPlaced as error:
            refused += [_left_out(one, str(error)) for one in backups]
            continue
        taken[identity] = vm
        contexts.append(context)
    everything = [*catalog.left_out, *without_backup, *left_out, *refused]
    return ImportPlan(contexts, sorted(everything, key=_by_vm))


def _context(
    vm: OldVm,
    backups: Sequence[Restorable],
    place: Place,
    catalog: OldCatalog,
    known: KnownCatalog,
    finder: VmFinder,
) -> PlannedContext:
    """Raises NotPlaced."""
    own_folders = {
        context.context_id
        for context in known.contexts.values()
        if context.repository_id == place.repository_id
    }
    by_path = {(disk.repository_id, disk.path): disk for disk in known.disks.values()}
    jobs = [_job(one, place, known.disks, by_path, own_folders) for one in backups]
    existing = {known.disks[job.disks[0].legacy_id].context_id for job in jobs if job.existing_id}
    if len(existing) > 1:
        raise NotPlaced(f"its backups were imported into several contexts: {sorted(existing)}")
    row = catalog.contexts.get(vm.context_id)
    created_at = row.created_at if row is not None else None
    before: KnownContext | None = None
    if existing:
        before = known.contexts[existing.pop()]
        site, instance_uuid = before.site, before.instance_uuid
    else:
        site = finder.site(vm)
        before = finder.known_context(vm, site, place.repository_id)
        instance_uuid = before.instance_uuid if before is not None else finder.instance_uuid(vm)
    return PlannedContext(
        old_id=vm.context_id,
        vm_name=vm.vm_name,
        moref=finder.moref(vm),
        instance_uuid=instance_uuid,
        site=site,
        place=place,
        created_at=created_at or jobs[0].created_at,
        jobs=tuple(jobs),
        existing_id=before.context_id if before is not None else "",
    )


def _job(
    one: Restorable,
    place: Place,
    known: Mapping[str, KnownDisk],
    by_path: Mapping[tuple[str, str], KnownDisk],
    own_folders: set[str],
) -> PlannedJob:
    """Raises NotPlaced when what was imported before is not this."""
    disks = tuple(_disk(layer, one) for layer in one.layers)
    before = [known.get(disk.legacy_id) for disk in disks]
    for disk, row in zip(disks, before, strict=True):
        if row is not None and (row.repository_id, row.path) != (place.repository_id, disk.path):
            raise NotPlaced(f"{disk.legacy_id} was imported before, from another file, {row.path}")
        if row is None:
            user = by_path.get((place.repository_id, disk.path))
            if user is not None:
                raise NotPlaced(
                    f"the file of {disk.legacy_id} was imported before as {user.legacy_id}"
                )
            if PurePosixPath(disk.path).parts[0] in own_folders:
                raise NotPlaced(f"the file of {disk.legacy_id} is one of this system's own")
    job_ids = {row.job_id for row in before if row is not None}
    if len(job_ids) > 1 or (job_ids and None in before):
        raise NotPlaced(f"{one.backup.key} was imported before with other disks")
    times = [layer.disk.times for layer in one.layers]
    if one.backup.job is not None:
        times.append(one.backup.job.times)
    started = [time.started_at for time in times if time.started_at is not None]
    return PlannedJob(
        key=one.backup.key,
        wanted_id="" if one.backup.how is Grouped.POSITION else one.backup.key,
        how=one.backup.how,
        backup_type=(
            BackupType.INCREMENTAL
            if any(disk.backup_type is BackupType.INCREMENTAL for disk in disks)
            else BackupType.FULL
        ),
        created_at=one.created_at,
        started_at=min(started, default=one.created_at),
        completed_at=max(disk.completed_at for disk in disks),
        disks=disks,
        existing_id=job_ids.pop() if job_ids else "",
    )


def _disk(layer: OldLayer, one: Restorable) -> PlannedDisk:
    disk = layer.disk
    assert disk.disk_index is not None
    created_at = disk.times.created_at or one.created_at
    return PlannedDisk(
        legacy_id=disk.legacy_id,
        disk_index=disk.disk_index,
        disk_key=disk.disk_key or 0,
        backup_type=BackupType.FULL if layer.backup_type == FULL else BackupType.INCREMENTAL,
        base_legacy_id=None if layer.base is None else layer.base.legacy_id,
        change_id=disk.change_id,
        path=str(layer.file.relative_to(layer.place.root)),
        capacity_bytes=layer.facts.capacity_bytes,
        bytes_transferred=disk.bytes_transferred,
        bytes_stored=layer.facts.file_bytes,
        created_at=created_at,
        completed_at=disk.times.completed_at or created_at,
        notes=(*disk.notes, *((layer.note,) if layer.note else ())),
    )


def _left_out(one: Restorable, reason: str) -> LeftOut:
    vm = one.backup.vm
    return LeftOut(row_refs(one.backup.disks), vm.vm_name, vm.repository_id, one.backup.key, reason)


def _by_vm(row: LeftOut) -> tuple[object, ...]:
    return row.vm_name, row.repository_id, row.backup, row.refs


def with_places(plan: ImportPlan, made: Mapping[str, str]) -> ImportPlan:
    """The plan, its new places made: repository ids by folder."""
    return replace(
        plan,
        contexts=[
            replace(
                context,
                place=replace(context.place, repository_id=made[str(context.place.root)])
                if context.place.is_new
                else context.place,
            )
            for context in plan.contexts
        ],
    )
