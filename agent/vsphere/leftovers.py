"""Finding the snapshots that an agent left."""

import structlog

from agent.vsphere.models import Leftover, SnapshotInfo
from agent.vsphere.properties import virtual_machines
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import NAME_PREFIX, is_of, snapshots_in

_log = structlog.get_logger(__name__)


class Leftovers:
    """Finds snapshots that one installation's agent left at this site. Any thread may call."""

    def __init__(self, session: VsphereSession) -> None:
        self._session = session
        self._told: set[str] = set()

    def find(self, alive_job_ids: set[str], owner: str) -> list[Leftover]:
        """The snapshots whose description names exactly `owner` and whose job is not alive.

        What another installation's agent made is not touched: its job may be
        alive there. Raises VsphereErrors; ValueError without an owner.
        """
        if not owner:
            raise ValueError("without an owner nothing can be told to be left over")
        alive = {NAME_PREFIX + job_id for job_id in alive_job_ids}
        found = self._session.run(
            "look for snapshots left behind",
            lambda: virtual_machines(self._session, ["snapshot"]),
            repeatable=True,
        )
        leftovers: list[Leftover] = []
        for vm, values in found:
            vm_moref = str(vm._GetMoId())
            for one in snapshots_in(values.get("snapshot")):
                if not one.name.startswith(NAME_PREFIX):
                    continue
                if not is_of(owner, one):
                    self._tell_foreign(vm_moref, one)
                elif one.name not in alive:
                    leftovers.append(Leftover(vm_moref, one.moref, one.name))
        return leftovers

    def _tell_foreign(self, vm_moref: str, snapshot: SnapshotInfo) -> None:
        """Once each: an agent that searches every few minutes must not fill its log."""
        if snapshot.moref not in self._told:
            self._told.add(snapshot.moref)
            _log.warning(
                "foreign_snapshot",
                snapshot=snapshot.name,
                vm=vm_moref,
                description=snapshot.description,
                hint="not of this installation: remove it by hand if nobody backs up with it",
            )
