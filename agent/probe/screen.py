"""A probe's report for people."""

from collections.abc import Iterator

from agent.probe.report import FailedRead, MachineReport, MissingPrivilege, ProbeReport, ReadReport

_MOST_NAMES = 5
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def lines(report: ProbeReport) -> Iterator[str]:
    """The report, line by line."""
    vsphere = report.vsphere
    yield f"site        {report.site}, agent {report.agent_version}"
    yield f"vSphere     {vsphere.full_name} at {vsphere.address}"
    yield f"            {vsphere.api_type}, API {vsphere.api_version}"
    yield from _privileges(report)
    yield from _read(report.read)
    yield f"VMs         {len(report.machines)}"
    for machine in report.machines:
        yield ""
        yield from _machine(machine)
    if report.left_out:
        yield ""
        yield "left out"
        for one in report.left_out:
            yield f"  {one.name} ({one.moref}): {one.reason}"


def _privileges(report: ProbeReport) -> Iterator[str]:
    privileges = report.privileges
    if privileges.problem:
        yield f"privileges  not known: {privileges.problem}"
    elif not report.machines:
        yield "privileges  not known: the user sees no VM"
    elif not privileges.missing:
        yield f"privileges  {privileges.user} has all that backups need"
    else:
        yield f"privileges  {privileges.user} lacks some that backups need:"
        for one in privileges.missing:
            yield f"            {_missing(one, len(report.machines))}"
    for one in privileges.recommended:
        yield f"            recommended: {_missing(one, len(report.machines))}"


def _missing(missing: MissingPrivilege, machines: int) -> str:
    more = len(missing.vms) - _MOST_NAMES
    names = ", ".join(missing.vms[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    where = "on every VM" if len(missing.vms) == machines else f"on {names}"
    return f"{' or '.join(missing.any_of)} {where}, to {missing.what_for}"


def _read(read: ReadReport) -> Iterator[str]:
    if not read.source:
        yield f"read        {read.problem}"
        return
    of = [_source(read), *filter(None, (read.disk, read.file_name)), read.transport]
    yield f"read        {', '.join(of)}"
    if read.read_bytes:
        what = "of what is allocated" if read.allocated_only else "from the disk's start"
        yield (
            f"            {_size(read.read_bytes)} {what} in {read.read_s:.2f} s, "
            f"{read.mib_per_s:g} MiB/s; opened in {read.open_s:.2f} s"
        )
    if read.problem:
        yield f"            failed: {read.problem} ({read.problem_code})"
    for one in read.failed_before[:_MOST_NAMES]:
        yield (
            f"            tried before: {_source(one)}{', ' if one.disk else ''}{one.disk}: "
            f"{one.problem} ({one.problem_code})"
        )
    if (more := len(read.failed_before) - _MOST_NAMES) > 0:
        yield f"            tried before: {more} more"


def _source(read: ReadReport | FailedRead) -> str:
    of = f'snapshot "{read.snapshot}" of ' if read.source == "snapshot" else "powered-off "
    return f"{of}{read.vm}"


def _machine(machine: MachineReport) -> Iterator[str]:
    yield f"{machine.name} ({machine.moref}), {machine.power_state}"
    if machine.problem:
        yield f"  cannot be backed up: {machine.problem}"
    yield f"  tracking  {machine.tracking.message}"
    for alarm in machine.alarms:
        yield f"  look at   {alarm.message} ({alarm.code})"
    for disk in machine.disks:
        told = f"cannot be backed up: {disk.problem}" if disk.problem else disk.file_name
        yield f"  {disk.label}, {_size(disk.capacity_bytes)}: {told}"


def _size(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} {_UNITS[-1]}"
