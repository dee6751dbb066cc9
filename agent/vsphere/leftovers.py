"""Whose snapshot is it: what an agent writes into its snapshots, and finding what it left."""

import json
from typing import Any

import structlog

from agent.vsphere.devices import unescaped
from agent.vsphere.inventory import snapshots_in
from agent.vsphere.models import Leftover
from agent.vsphere.properties import virtual_machines
from agent.vsphere.session import VsphereSession

_log = structlog.get_logger(__name__)

NAME_PREFIX = "sendense-"


def description_for(owner: str, site: str, job_id: str) -> str:
    """Says whose snapshot it is; the search goes by its beginning, which holds the owner alone."""
    return (
        f"{_mark(owner)}of site {json.dumps(site)}: "
        f"job {job_id} reads this snapshot and removes it when it ends."
    )


def _mark(owner: str) -> str:
    # Quoted, so that no owner's id is the beginning of another's.
    return f"Made by the Sendense agent {json.dumps(owner)} "


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
            for node in snapshots_in(values.get("snapshot")):
                name = unescaped(node.name)
                if not name.startswith(NAME_PREFIX):
                    continue
                if not (node.description or "").startswith(_mark(owner)):
                    self._tell_foreign(vm_moref, node, name)
                elif name not in alive:
                    leftovers.append(Leftover(vm_moref, str(node.snapshot._GetMoId()), name))
        return leftovers

    def _tell_foreign(self, vm_moref: str, node: Any, name: str) -> None:
        """Once each: an agent that searches every few minutes must not fill its log."""
        moref = str(node.snapshot._GetMoId())
        if moref not in self._told:
            self._told.add(moref)
            _log.warning(
                "foreign_snapshot",
                snapshot=name,
                vm=vm_moref,
                description=node.description or "",
                hint="not of this installation: remove it by hand if nobody backs up with it",
            )
