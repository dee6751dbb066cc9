"""A VM's other snapshots, looked at before a job adds its own."""

from agent.vsphere.models import SnapshotInfo, Warning
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import is_of, snapshot_facts
from shared.snapshot_alarms import AlarmLimits, snapshot_alarms


def warnings_of_others(
    session: VsphereSession, snapshots: list[SnapshotInfo], owner: str
) -> list[Warning]:
    """SNAPSHOT_OLD and SNAPSHOT_COUNT, of the snapshots that `owner` did not make.

    Its own are removed by the sweep, which warns when it cannot. Ages are by
    the host's clock, which wrote the dates. Raises VsphereErrors.
    """
    others = [snapshot_facts(one) for one in snapshots if not is_of(owner, one)]
    if not others:
        return []
    settings = session.settings
    limits = AlarmLimits(settings.snapshot_age_alarm_h, settings.snapshot_count_alarm)
    return [
        Warning(alarm.code, alarm.message)
        for alarm in snapshot_alarms(others, session.server_time(), limits)
    ]
