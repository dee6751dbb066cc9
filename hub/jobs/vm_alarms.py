"""What of a protected VM's snapshots needs a person's look, as its agent last reported them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hub.catalog.protection import protected_vms, vm_key
from hub.jobs.parts import Parts
from sendense.v1.inventory_pb2 import VirtualMachine, VmSnapshot
from shared.errors import SendenseError
from shared.snapshot_alarms import (
    CONSOLIDATION_NEEDED,
    SNAPSHOT_COUNT,
    SNAPSHOT_OLD,
    Alarm,
    AlarmLimits,
    SnapshotFacts,
    consolidation_alarm,
    snapshot_alarms,
)

_log = structlog.get_logger(__name__)


def vm_alarms(vm: VirtualMachine, now: datetime, limits: AlarmLimits) -> list[Alarm]:
    """Of one VM that has a restore point; at most one of a kind."""
    facts = [
        SnapshotFacts(one.name, _created_at(one, now), one.is_sendense) for one in vm.snapshots
    ]
    alarms = snapshot_alarms(facts, now, limits)
    if vm.consolidation_needed:
        alarms.append(consolidation_alarm())
    return alarms


def _created_at(snapshot: VmSnapshot, now: datetime) -> datetime:
    """What the agent told; a date that is none makes a snapshot young, not the hub fail."""
    if not snapshot.HasField("created_at"):
        return now
    try:
        return snapshot.created_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return now


class AlarmCollector(Collector):
    """`sendense_hub_vm_alarms` by code, counted when it is asked for: snapshots age by themselves."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Without asking the catalog: registering needs no hub that runs."""
        yield _family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Left out while the catalog does not answer: no number is better than a wrong one."""
        parts, counts = self._parts, Counter[str]()
        try:
            with parts.catalog.read() as session:
                protected = protected_vms(session)
        except SendenseError as error:
            _log.warning("alarms_not_counted", error=str(error))
            return
        now = parts.now()
        for one in parts.agents.reported():
            if vm_key(one.vm.site, one.vm.instance_uuid) in protected:
                counts.update(alarm.code for alarm in vm_alarms(one.vm, now, parts.alarm_limits))
        family = _family()
        for code in (SNAPSHOT_OLD, SNAPSHOT_COUNT, CONSOLIDATION_NEEDED):
            family.add_metric([code], counts[code])
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "sendense_hub_vm_alarms",
        "Protected VMs with snapshots that need a look, by alarm",
        labels=["code"],
    )
