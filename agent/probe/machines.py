"""What a backup of a VM would meet, from one look at it."""

from datetime import datetime

from agent.probe.report import (
    AlarmReport,
    DiskReport,
    MachineReport,
    MissingPrivilege,
    SnapshotReport,
    TrackingReport,
)
from agent.vsphere.models import Needed, SurveyedVm
from agent.vsphere.snapshot_tree import is_sendense, snapshot_facts
from shared.snapshot_alarms import AlarmLimits, consolidation_alarm, snapshot_alarms


def machine_report(vm: SurveyedVm, now: datetime, limits: AlarmLimits) -> MachineReport:
    """`now` is the host's time, as the dates of its snapshots are."""
    info = vm.info
    alarms = snapshot_alarms([snapshot_facts(one) for one in info.snapshots], now, limits)
    if info.consolidation_needed:
        alarms.append(consolidation_alarm())
    tracked = {disk.key for disk in vm.disks_now if disk.change_id}
    return MachineReport(
        name=info.name,
        moref=info.moref,
        instance_uuid=info.instance_uuid,
        power_state=info.power_state,
        tracking=_tracking(vm),
        snapshots=[
            SnapshotReport(one.name, one.created_at.isoformat(), is_sendense(one))
            for one in info.snapshots
        ],
        alarms=[AlarmReport(alarm.code, alarm.message) for alarm in alarms],
        disks=[
            DiskReport(
                label=disk.label,
                key=disk.key,
                uuid=disk.uuid,
                capacity_bytes=disk.capacity_bytes,
                mode=disk.disk_mode,
                file_name=disk.file_name,
                tracked=disk.key in tracked,
                problem=disk.not_protectable_reason,
            )
            for disk in info.disks
        ],
        problem=_problem(vm),
    )


def _problem(vm: SurveyedVm) -> str:
    """Why the VM cannot be backed up at all."""
    shared = [disk.label for disk in vm.info.disks if disk.refuses_snapshots]
    if shared:
        return (
            f"vSphere takes no snapshot of it while other VMs write to {', '.join(shared)} "
            "(multi-writer)"
        )
    if not vm.info.disks:
        return "it has no disk"
    if not vm.disks_now:
        return "it has no disk that a snapshot would freeze"
    return ""


def _tracking(vm: SurveyedVm) -> TrackingReport:
    snapshots = len(vm.info.snapshots)
    if vm.info.change_tracking_enabled:
        if all(disk.change_id for disk in vm.disks_now):
            return TrackingReport("active", "on: increments read what changed")
        return TrackingReport(
            "enabled", "enabled, it takes effect at the next snapshot or power-on"
        )
    if not vm.change_tracking_supported:
        return TrackingReport(
            "not_supported",
            "the VM's hardware version does not support it: upgrade it, or every backup reads "
            "everything",
        )
    if snapshots:
        return TrackingReport(
            "off_snapshots",
            f"off, and not enabled while the VM has {snapshots} "
            f"snapshot{'s' if snapshots > 1 else ''}: every backup reads everything; remove them",
        )
    return TrackingReport("off", "off: the first backup enables it")


def missing_privileges(machines: list[SurveyedVm]) -> list[MissingPrivilege]:
    """What backups need and the user lacks, with the VMs where it does."""
    return _missing(machines, are_required=True)


def recommended_privileges(machines: list[SurveyedVm]) -> list[MissingPrivilege]:
    """What else the user lacks, and no backup is known to need."""
    return _missing(machines, are_required=False)


def _missing(machines: list[SurveyedVm], *, are_required: bool) -> list[MissingPrivilege]:
    vms: dict[Needed, list[str]] = {}
    for vm in machines:
        for needed in vm.missing:
            if needed.is_required is are_required:
                vms.setdefault(needed, []).append(vm.info.name)
    return [
        MissingPrivilege(list(needed.any_of), needed.what_for, names)
        for needed, names in vms.items()
    ]
