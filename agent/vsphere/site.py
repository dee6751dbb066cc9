"""One vSphere site: the face of this package."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from agent.areas import Area
from agent.cancellation import NEVER_CANCELLED, Cancellation
from agent.transports.disk_reader import DiskReader
from agent.transports.errors import NfcTicketRefused
from agent.transports.nfc.budget import NfcBudget
from agent.transports.nfc.connections import NfcConnections, NfcDisk
from agent.transports.nfc.reconnecting import ReconnectingReader
from agent.transports.nfc.ticket import NfcTicket
from agent.vsphere import (
    change_tracking,
    found_snapshot,
    frozen,
    inventory,
    snapshot_removal,
    snapshots,
    survey,
)
from agent.vsphere.errors import VsphereFault
from agent.vsphere.leftovers import Leftovers
from agent.vsphere.models import (
    FrozenDisk,
    JobSnapshot,
    Leftover,
    SiteSurvey,
    ToldDisk,
    VirtualMachineInfo,
    VsphereAbout,
)
from agent.vsphere.nfc_service import NfcTickets
from agent.vsphere.session import VsphereSession
from agent.vsphere.settings import VsphereSettings


class VsphereSite:
    """Several jobs share one: every method may be called from any thread.

    One login, renewed when it expired in mid-call and kept alive between
    calls. All methods raise VsphereErrors, `open_disk` TransportErrors too; those that
    use a job's snapshot raise SnapshotVanished when others took it away.
    """

    def __init__(self, session: VsphereSession) -> None:
        self._session = session
        self._tickets = NfcTickets(session)
        self._budget = NfcBudget(
            session.settings.nfc_connections_per_host, session.settings.nfc_buffers_mib_per_host
        )
        self._leftovers = Leftovers(session)

    @classmethod
    def connect(cls, settings: VsphereSettings) -> Self:
        """Check the certificate, log in.

        Raises ConfigurationError, VsphereUnreachable, CertificateMismatch,
        CertificateNotPinned, LoginFailed.
        """
        return cls(VsphereSession(settings))

    def about(self) -> VsphereAbout:
        """Who answered at login."""
        about = self._session.content.about
        return VsphereAbout(
            address=self._session.settings.address,
            full_name=str(about.fullName),
            api_type=str(about.apiType),
            api_version=str(about.apiVersion),
        )

    def virtual_machines(self) -> list[VirtualMachineInfo]:
        """The site's VMs, without templates, ordered by name."""
        return inventory.list_virtual_machines(self._session)

    def time(self) -> datetime:
        """What time it is there."""
        return self._session.server_time()

    def survey(self) -> SiteSurvey:
        """All VMs with what a backup of them would meet; changes nothing."""
        return survey.survey(self._session)

    def frozen_disks(self, snapshot_moref: str) -> list[FrozenDisk]:
        """The disks of any snapshot."""
        return frozen.frozen_disks(self._session, snapshot_moref)

    def take_snapshot(
        self,
        *,
        job_id: str,
        vm_moref: str,
        instance_uuid: str,
        quiesce: bool,
        owner: str,
        cancellation: Cancellation = NEVER_CANCELLED,
    ) -> JobSnapshot:
        """Enable tracking where needed and freeze all disks of the VM in one snapshot.

        An empty `instance_uuid` is not compared. `owner` is the agent's id in its
        installation, by which `find_leftovers` knows its snapshots.

        Raises VmNotFound, NoDisks, SnapshotFailed and others, and no snapshot is
        left then, as with the error of `cancellation`; SnapshotMaybeLeft when one may be,
        SnapshotNotRemoved when one of an earlier run for the same job stays.
        """
        return snapshots.take_snapshot(
            self._session,
            job_id=job_id,
            vm_moref=vm_moref,
            instance_uuid=instance_uuid,
            quiesce=quiesce,
            owner=owner,
            cancellation=cancellation,
        )

    def find_snapshot(
        self,
        *,
        moref: str,
        job_id: str,
        vm_moref: str,
        instance_uuid: str,
        quiesce: bool,
        owner: str,
        disks: Sequence[ToldDisk],
        cancellation: Cancellation = NEVER_CANCELLED,
    ) -> JobSnapshot:
        """The job's snapshot that an earlier run of the agent took; it holds exactly these disks.

        Waits out a vSphere that does not answer, for minutes. Raises SnapshotLost,
        VmNotFound, the error of `cancellation`.
        """
        return found_snapshot.find_snapshot(
            self._session,
            moref=moref,
            job_id=job_id,
            vm_moref=vm_moref,
            instance_uuid=instance_uuid,
            quiesce=quiesce,
            owner=owner,
            disks=disks,
            cancellation=cancellation,
        )

    def changed_areas(
        self,
        snapshot: JobSnapshot,
        disk: FrozenDisk,
        base_change_id: str,
        cancellation: Cancellation = NEVER_CANCELLED,
    ) -> list[Area]:
        """Ascending, disjoint areas that changed since the base.

        Raises ChangeTrackingUnusable, SnapshotVanished, the error of `cancellation`.
        """
        return change_tracking.changed_areas(
            self._session, snapshot, disk, base_change_id, cancellation
        )

    def open_disk(
        self, snapshot: JobSnapshot, disk: FrozenDisk, cancellation: Cancellation
    ) -> DiskReader:
        """Open the link that the snapshot froze, on a connection of its own.

        The reader opens others when that one fails (see ReconnectingReader). Waits for
        room in the host's budget, until `cancellation`, which ends the reader as well.
        Before each connection it is seen that the snapshot still stands; a `snapshot`
        without a moref names none: `disk` is one that a VM without snapshots has.

        Raises TransportErrors, VsphereErrors, SnapshotVanished, the error of `cancellation`.
        While it reads, the reader raises SnapshotVanished, too.
        """
        settings = self._session.settings
        file = NfcDisk(
            disk.file_name,
            disk.capacity_bytes,
            host=lambda: self._tickets.host_of(snapshot.vm_moref),
            ticket=lambda: self._ticket(snapshot, disk),
            is_running=lambda: frozen.is_running_on(
                self._session, snapshot.vm_moref, disk.file_name
            ),
        )
        connections = NfcConnections(file, self._budget, settings.transport, settings.timeout_s)
        return ReconnectingReader.open(connections, cancellation, settings.reconnect)

    def _ticket(self, snapshot: JobSnapshot, disk: FrozenDisk) -> NfcTicket:
        """For one connection. Raises NfcTicketRefused for vSphere's faults, VsphereErrors."""
        try:
            if snapshot.moref:
                frozen.require_frozen(self._session, snapshot)
            return self._tickets.for_disk(snapshot.vm_moref, disk.key)
        except VsphereFault as fault:
            raise NfcTicketRefused(disk.file_name, str(fault)) from fault

    def require_frozen(self, snapshot: JobSnapshot, cancellation: Cancellation) -> None:
        """See at a job's end that all it read was frozen, and stayed so.

        Waits out a vSphere that does not answer, for minutes. Raises SnapshotVanished,
        VsphereErrors, the error of `cancellation`: nothing is known then.
        """
        frozen.require_frozen_at_the_end(self._session, snapshot, cancellation)

    def remove_snapshot(self, snapshot: JobSnapshot) -> None:
        """Remove it and see that it is gone; may be repeated. Raises SnapshotNotRemoved."""
        snapshot_removal.remove_snapshot(self._session, snapshot)

    def remove_snapshots_of_job(self, job_id: str, vm_moref: str, owner: str) -> None:
        """Remove whatever `owner` made for a job. Raises SnapshotNotRemoved."""
        snapshot_removal.remove_of_job(self._session, vm_moref, job_id, owner)

    def find_leftovers(
        self, alive_job_ids: Callable[[], set[str]], owner: str, vm_moref: str = ""
    ) -> list[Leftover]:
        """The snapshots that `owner` made for other jobs than these, at one VM or at the site.

        `alive_job_ids` is called when they are listed: the answer holds every job
        whose snapshot may be among them.
        """
        return self._leftovers.find(alive_job_ids, owner, vm_moref)

    def remove_leftover(self, leftover: Leftover, ended: threading.Event) -> None:
        """Remove it and see that it is gone; may be repeated. Raises SnapshotNotRemoved.

        `ended` may be set from any thread: then nobody waits for the result any more.
        """
        snapshot_removal.remove_snapshot(self._session, leftover, ended)

    def merge_disks(self, vm_moref: str, ended: threading.Event) -> str:
        """Merge what removals at this VM left; returns why it is not merged, or nothing."""
        return snapshot_removal.merge_disks(self._session, vm_moref, ended)

    def close(self) -> None:
        """Log out. May be called twice; raises nothing. Open readers read on."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
