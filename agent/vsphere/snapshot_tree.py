"""A VM's snapshots as vSphere lists them, and whose they are."""

import json
from datetime import UTC, datetime
from typing import Any

from agent.vsphere.api import vim
from agent.vsphere.devices import unescaped
from agent.vsphere.errors import VsphereFault
from agent.vsphere.models import SnapshotInfo
from agent.vsphere.properties import properties_of
from agent.vsphere.session import VsphereSession
from shared.snapshot_alarms import SnapshotFacts

NAME_PREFIX = "sendense-"
_MADE_BY = "Made by the Sendense agent "


def snapshots_of(session: VsphereSession, vm_moref: str) -> list[SnapshotInfo]:
    """A VM's snapshots now; none when the VM is gone. Raises VsphereErrors."""
    vm = vim.VirtualMachine(vm_moref, session.stub)
    try:
        values = session.run(
            "list the VM's snapshots",
            lambda: properties_of(session, vm, ["snapshot"]),
            repeatable=True,
        )
    except VsphereFault as error:
        if error.is_object_gone:
            return []
        raise
    return snapshots_in(values.get("snapshot"))


def snapshots_in(snapshot_info: Any) -> list[SnapshotInfo]:
    """All nodes of a VM's snapshot tree, parents before children; None has none."""
    found: list[SnapshotInfo] = []
    waiting = list(snapshot_info.rootSnapshotList) if snapshot_info else []
    while waiting:
        node = waiting.pop(0)
        found.append(_info(node))
        waiting.extend(node.childSnapshotList or [])
    return found


def _info(node: Any) -> SnapshotInfo:
    created: datetime = node.createTime
    return SnapshotInfo(
        name=unescaped(node.name),
        moref=str(node.snapshot._GetMoId()),
        description=str(node.description or ""),
        created_at=created if created.tzinfo else created.replace(tzinfo=UTC),
        quiesced=bool(node.quiesced),
    )


def description_for(owner: str, site: str, job_id: str) -> str:
    """Says whose snapshot it is; the search goes by its beginning, which holds the owner alone."""
    return (
        f"{_mark(owner)}of site {json.dumps(site)}: "
        f"job {job_id} reads this snapshot and removes it when it ends."
    )


def is_sendense(snapshot: SnapshotInfo) -> bool:
    """Whether an agent made it, of this installation or of another."""
    return snapshot.name.startswith(NAME_PREFIX) and snapshot.description.startswith(_MADE_BY)


def is_of(owner: str, snapshot: SnapshotInfo) -> bool:
    """Whether exactly this installation's agent made it."""
    return snapshot.name.startswith(NAME_PREFIX) and snapshot.description.startswith(_mark(owner))


def snapshot_facts(snapshot: SnapshotInfo) -> SnapshotFacts:
    """What its age and number are judged by."""
    return SnapshotFacts(snapshot.name, snapshot.created_at, is_sendense(snapshot))


def _mark(owner: str) -> str:
    # Quoted, so that no owner's id is the beginning of another's.
    return f"{_MADE_BY}{json.dumps(owner)} "
