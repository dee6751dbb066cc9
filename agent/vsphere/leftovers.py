"""Finding the snapshots that an agent left."""

from collections.abc import Callable

import structlog

from agent.vsphere.models import Leftover, SnapshotInfo
from agent.vsphere.properties import virtual_machines
from agent.vsphere.session import VsphereSession
from agent.vsphere.snapshot_tree import NAME_PREFIX, is_of, snapshots_in, snapshots_of

_log = structlog.get_logger(__name__)


class Leftovers:
    """Finds snapshots that one installation's agent left at this site. Any thread may call."""

    def __init__(self, session: VsphereSession) -> None:
        self._session = session
        self._told: set[str] = set()
        self._told_unmerged: set[str] = set()

    def find(
        self, alive_job_ids: Callable[[], set[str]], owner: str, vm_moref: str = ""
    ) -> list[Leftover]:
        """The snapshots whose description names exactly `owner` and whose job is not alive.

        Of one VM, or of all that vSphere shows; that the snapshots of a single VM are
        not shown is an error. What another installation's agent made is not touched:
        its job may be alive there. Raises VsphereErrors; ValueError without an owner.
        """
        if not owner:
            raise ValueError("without an owner nothing can be told to be left over")
        listed = {vm_moref: snapshots_of(self._session, vm_moref)} if vm_moref else self._of_all()
        # Asked now: a job becomes alive before it takes a snapshot, and one that is not
        # alive any more is done with its own.
        alive = {NAME_PREFIX + job_id for job_id in alive_job_ids()}
        leftovers: list[Leftover] = []
        for moref, snapshots in listed.items():
            for one in snapshots:
                if not one.name.startswith(NAME_PREFIX):
                    continue
                if not is_of(owner, one):
                    self._tell_foreign(moref, one)
                elif one.name not in alive:
                    leftovers.append(Leftover(moref, one.moref, one.name))
        return leftovers

    def _of_all(self) -> dict[str, list[SnapshotInfo]]:
        paths = ["snapshot", "runtime.consolidationNeeded"]
        found = self._session.run(
            "look for snapshots left behind",
            lambda: virtual_machines(self._session, paths),
            repeatable=True,
        )
        by_moref = {str(vm._GetMoId()): values for vm, values in found}
        self._tell_unmerged(
            {
                moref
                for moref, values in by_moref.items()
                if values.get("runtime.consolidationNeeded")
            }
        )
        return {moref: snapshots_in(values.get("snapshot")) for moref, values in by_moref.items()}

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

    def _tell_unmerged(self, vm_morefs: set[str]) -> None:
        """Once for as long as vSphere says so."""
        for vm_moref in sorted(vm_morefs - self._told_unmerged):
            _log.warning(
                "disks_need_consolidation",
                vm=vm_moref,
                hint="nothing tells whose removal left them: the VM's next backup consolidates "
                "them, and before that the agent does if its own removal left them since it started",
            )
        self._told_unmerged = vm_morefs
