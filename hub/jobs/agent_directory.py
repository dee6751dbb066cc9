"""Which agents are connected, and the VMs they reported."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hub.errors import SiteTaken, VmAmbiguous, VmUnidentified
from hub.jobs.agent_link import AgentLink
from sendense.v1 import agent_session_pb2, inventory_pb2
from shared.errors import SendenseError

# Fields of a VM that no agent sets.
_OF_THE_HUB: Final = ("is_protected", "last_backup_id", "last_backup_at", "alarms")


@dataclass(frozen=True, slots=True)
class Presence:
    """A site as the hub sees it now; `last_seen_at` None: not since the hub started."""

    connected: bool
    last_seen_at: datetime | None
    vm_count: int


@dataclass(frozen=True, slots=True)
class ReportedVm:
    """A VM as its agent reported it: not to be changed, `message` is a copy that may be."""

    vm: inventory_pb2.VirtualMachine
    agent_connected: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """What VMs are ordered by: name, site, moref."""
        return self.vm.name, self.vm.site, self.vm.vmware_vm_id

    def message(self) -> inventory_pb2.VirtualMachine:
        """A copy that tells whether the site's agent is connected."""
        copy = inventory_pb2.VirtualMachine()
        copy.CopyFrom(self.vm)
        copy.agent_connected = self.agent_connected
        return copy


@dataclass(slots=True)
class _Site:
    link: AgentLink | None = None
    last_seen_at: datetime | None = None
    virtual_machines: tuple[inventory_pb2.VirtualMachine, ...] = ()


class AgentDirectory:
    """Thread-safe. An inventory stays known after its agent went away, and what the
    catalog kept of it (`recall`) after the hub's end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._sites: dict[str, _Site] = {}
        self._closed: SendenseError | None = None

    def join(self, link: AgentLink, now: datetime) -> AgentLink | None:
        """The agent of `link.site` is connected from now on.

        Returns the link that it replaces: an earlier one of the same run of the agent.
        Raises SiteTaken, and what the directory was closed with.
        """
        with self._lock:
            if self._closed is not None:
                raise self._closed
            site = self._sites.setdefault(link.site, _Site())
            before = site.link
            if before is not None and (not link.run_id or before.run_id != link.run_id):
                raise SiteTaken(link.site, before.hostname)
            site.link = link
            site.last_seen_at = now
            return before

    def is_current(self, link: AgentLink) -> bool:
        """Whether the link is its site's, and was not replaced."""
        with self._lock:
            site = self._sites.get(link.site)
            return site is not None and site.link is link

    def leave(self, link: AgentLink) -> None:
        """The link ended; another agent may serve the site."""
        with self._lock:
            site = self._sites.get(link.site)
            if site is not None and site.link is link:
                site.link = None
                self._left.notify_all()

    def seen(self, link: AgentLink, now: datetime) -> None:
        """The agent gave a sign of life."""
        with self._lock:
            self._sites[link.site].last_seen_at = now

    def report(
        self, link: AgentLink, virtual_machines: Iterable[inventory_pb2.VirtualMachine]
    ) -> bool:
        """The site's whole inventory, replacing the one before. False when it is the same."""
        reported = tuple(virtual_machines)
        for vm in reported:
            vm.site = link.site
            for field in _OF_THE_HUB:
                vm.ClearField(field)
        with self._lock:
            known = self._sites[link.site]
            changed = known.virtual_machines != reported
            known.virtual_machines = reported
        return changed

    def recall(self, site: str, virtual_machines: Iterable[inventory_pb2.VirtualMachine]) -> None:
        """What the site's agent reported to an earlier run of the hub; for start-up."""
        with self._lock:
            self._sites.setdefault(site, _Site()).virtual_machines = tuple(virtual_machines)

    def send(self, site: str, command: agent_session_pb2.SessionResponse) -> bool:
        """Hand a command to the site's agent. False when it is away."""
        link = self._link(site)
        return link is not None and link.send(command)

    def jobs_in_parallel(self, site: str) -> int:
        """How many jobs the site's agent runs at a time; 0: it is away, or has not told."""
        link = self._link(site)
        return 0 if link is None else link.jobs_in_parallel

    def keeps_jobs(self, site: str) -> bool:
        """Whether the site's agent is connected and can be asked to resume a job."""
        link = self._link(site)
        return link is not None and link.keeps_jobs

    def serves(self, site: str, job_id: str) -> bool:
        """Whether the job was given to the session that the site has now."""
        link = self._link(site)
        return link is not None and link.serves(job_id)

    def job_ended(self, job_id: str) -> None:
        """Nothing more is to be done for the job."""
        with self._lock:
            links = self._links()
        for link in links:
            link.job_ended(job_id)

    def presence(self, site: str) -> Presence:
        """How the site stands; an unknown one is away."""
        with self._lock:
            known = self._sites.get(site, _Site())
            return Presence(known.link is not None, known.last_seen_at, len(known.virtual_machines))

    def forget(self, site: str) -> None:
        """Drop the inventory of a site whose agent was removed; one that has joined keeps it."""
        with self._lock:
            known = self._sites.get(site)
            if known is not None and known.link is None:
                del self._sites[site]

    def reported(self, *, site: str = "", name: str = "") -> list[ReportedVm]:
        """What was reported, ordered by name, site and moref; "" means any."""
        with self._lock:
            found = [
                ReportedVm(vm, known.link is not None)
                for site_name, known in self._sites.items()
                if site in ("", site_name)
                for vm in known.virtual_machines
                if name in ("", vm.name)
            ]
        found.sort(key=lambda one: one.key)
        return found

    def virtual_machines(
        self, *, site: str = "", name: str = ""
    ) -> list[inventory_pb2.VirtualMachine]:
        """Copies of what was reported, ordered as `reported`; "" means any."""
        return [one.message() for one in self.reported(site=site, name=name)]

    def find_vm(self, vm: str, site: str) -> inventory_pb2.VirtualMachine | None:
        """The one VM of that name, moref or instance uuid; `site` "" means any.

        None when no inventory has it. Raises VmAmbiguous, and VmUnidentified
        when its instance uuid does not tell it from another VM of its site.
        """
        known = self.virtual_machines(site=site)
        found = [
            one
            for one in known
            if vm in (one.name, one.vmware_vm_id) or vm.lower() == one.instance_uuid.lower()
        ]
        if len(found) > 1:
            raise VmAmbiguous(vm, _in_order(one.site for one in found))
        if not found:
            return None
        (one,) = found
        if not one.instance_uuid:
            raise VmUnidentified(one.name, "it has no instance uuid")
        twins = [
            other.name
            for other in known
            if other.site == one.site
            and other.instance_uuid.lower() == one.instance_uuid.lower()
            and other.vmware_vm_id != one.vmware_vm_id
        ]
        if twins:
            raise VmUnidentified(one.name, f"{', '.join(twins)} has the same instance uuid")
        return one

    def close(self, error: SendenseError, timeout_s: float) -> None:
        """End all sessions and wait, so long at most, until they have left; none begins any more."""
        with self._lock:
            self._closed = error
            links = self._links()
        for link in links:
            link.close(error)
        with self._lock:
            self._left.wait_for(lambda: not self._links(), timeout_s)

    def _link(self, site: str) -> AgentLink | None:
        with self._lock:
            known = self._sites.get(site)
            return None if known is None else known.link

    def _links(self) -> list[AgentLink]:
        return [site.link for site in self._sites.values() if site.link is not None]


def _in_order(names: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(names))
