"""The VMs that agents reported, with what the catalog knows of their backups."""

from collections.abc import Sequence
from datetime import datetime

from hub.catalog.agents import find_agent
from hub.catalog.paging import decode_token, encode_token, page_rows
from hub.catalog.protection import LastBackup, protected_vms, vm_key
from hub.errors import AgentNotFound, SiteNotFound
from hub.jobs.agent_directory import ReportedVm
from hub.jobs.parts import Parts
from hub.jobs.vm_alarms import vm_alarms
from sendense.v1.inventory_pb2 import VirtualMachine, VmAlarm
from shared.snapshot_alarms import AlarmLimits


def list_virtual_machines(
    parts: Parts,
    *,
    site: str = "",
    name: str = "",
    protected: bool | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> tuple[Sequence[VirtualMachine], str]:
    """A page of VMs ordered by name, site and moref, and the token of the next.

    `protected` None means all. Raises SiteNotFound, InvalidArgument.
    """
    rows = page_rows(page_size)
    after = decode_token(page_token, str, str, str)
    with parts.catalog.read() as session:
        if site:
            try:
                find_agent(session, site)
            except AgentNotFound as error:
                raise SiteNotFound(site) from error
        backups = protected_vms(session, site)
    found: list[tuple[ReportedVm, LastBackup | None]] = []
    for one in parts.agents.reported(site=site, name=name):
        backup = backups.get(vm_key(one.vm.site, one.vm.instance_uuid))
        if protected is not None and protected is not (backup is not None):
            continue
        if after is None or one.key > tuple(after):
            found.append((one, backup))
        if len(found) > rows:
            break
    now, limits = parts.now(), parts.alarm_limits
    page = [_message(one, backup, now, limits) for one, backup in found[:rows]]
    return page, encode_token(*found[rows - 1][0].key) if len(found) > rows else ""


def _message(
    one: ReportedVm, backup: LastBackup | None, now: datetime, limits: AlarmLimits
) -> VirtualMachine:
    message = one.message()
    if backup is not None:
        message.is_protected = True
        message.last_backup_id = backup.job_id
        if backup.completed_at is not None:
            message.last_backup_at.FromDatetime(backup.completed_at)
        for alarm in vm_alarms(one.vm, now, limits):
            message.alarms.append(VmAlarm(code=alarm.code, message=alarm.message))
    return message
