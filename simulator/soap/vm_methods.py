"""The methods of VMs, snapshots and the NFC service."""

from collections.abc import Callable
from typing import Any

from simulator.behaviour import Behaviour
from simulator.certificate import HostCertificate
from simulator.changed_answer import ChangedAnswers
from simulator.disks.disk import SimulatedDisk
from simulator.faults.api_kinds import QuiesceFail, SnapshotRemoveFail
from simulator.faults.armed import Armed
from simulator.faults.board import FaultBoard, K
from simulator.faults.kind import Place
from simulator.faults.tracking_kinds import ChangeIdMissing, ChangeIdUuid, FileFault
from simulator.machines import SimulatedVm
from simulator.nfc.tickets import LIBRARY_VERSION, SERVICE_VERSION, Ticket, Tickets
from simulator.snapshots import OperationRefused, Snapshot
from simulator.soap.faults import (
    VimFault,
    invalid_argument,
    named_fault,
    not_supported,
    object_not_found,
    refused,
)
from simulator.soap.inventory import Inventory
from simulator.soap.methods import Context, Method
from simulator.soap.tasks import Tasks
from simulator.soap.vm_view import vm_reference
from simulator.soap.vmomi import Reference, vim

_CHANGE_INFO = vim.VirtualMachine.DiskChangeInfo


class VmMethods:
    """What clients do with VMs. Slow things become tasks."""

    def __init__(
        self,
        inventory: Inventory,
        tasks: Tasks,
        tickets: Tickets,
        behaviour: Behaviour,
        faults: FaultBoard,
        *,
        nfc_address: Callable[[], tuple[str, int]],
        certificate: HostCertificate,
    ) -> None:
        """`certificate` is the one whose thumbprint tickets tell."""
        self._inventory = inventory
        self._tasks = tasks
        self._tickets = tickets
        self._behaviour = behaviour
        self._faults = faults
        self._answers = ChangedAnswers(faults)
        self._nfc_address = nfc_address
        self._certificate = certificate

    def methods(self) -> dict[str, Method]:
        """By WSDL name."""
        return {
            "ReconfigVM_Task": self._reconfigure,
            "PowerOnVM_Task": lambda context, _: self._power(context, "poweredOn"),
            "PowerOffVM_Task": lambda context, _: self._power(context, "poweredOff"),
            "SuspendVM_Task": lambda context, _: self._power(context, "suspended"),
            "CreateSnapshot_Task": self._create_snapshot,
            "CreateSnapshotEx_Task": self._create_snapshot,
            "RemoveSnapshot_Task": self._remove_snapshot,
            "RemoveAllSnapshots_Task": self._remove_all_snapshots,
            "RevertToSnapshot_Task": self._revert,
            "ConsolidateVMDisks_Task": self._consolidate,
            "QueryChangedDiskAreas": self._changed_areas,
            "NfcGetVmFiles": lambda _, given: self._ticket(given, None, writable=False),
            "NfcRandomAccessOpenReadonly": lambda _, given: self._disk_ticket(
                given, writable=False
            ),
            "NfcRandomAccessOpenDisk": lambda _, given: self._disk_ticket(given, writable=True),
            "NfcGetServerNfcLibVersion": lambda _, __: LIBRARY_VERSION,
        }

    def _vm(self, reference: Reference) -> SimulatedVm:
        vm = self._inventory.vm(reference)
        if vm is None:
            raise object_not_found(reference)
        return vm

    def _snapshot(self, reference: Reference) -> tuple[SimulatedVm, Snapshot]:
        found = self._inventory.snapshot(reference)
        if found is None:
            raise object_not_found(reference)
        return found

    def _task(
        self, context: Context, vm: SimulatedVm, entity: Reference, work: Callable[[], Any]
    ) -> Any:
        task = self._tasks.start(
            context.call.method, entity, vm.name, context.user.user, work, file=vm.vmx_path
        )
        return vim.Task(task.moid)

    def _reconfigure(self, context: Context, arguments: dict[str, Any]) -> Any:
        vm = self._vm(context.call.this)
        spec = arguments["spec"]
        if spec.deviceChange:
            raise not_supported("This host changes no devices.")

        def work() -> None:
            vm.reconfigure(
                change_tracking_enabled=spec.changeTrackingEnabled, name=spec.name or None
            )

        return self._task(context, vm, vm_reference(vm), work)

    def _power(self, context: Context, state: Any) -> Any:
        vm = self._vm(context.call.this)

        def work() -> None:
            if vm.power_state == state:
                raise VimFault(
                    vim.fault.InvalidPowerState(requestedState=state, existingState=vm.power_state),
                    "The attempted operation cannot be performed in the current state "
                    f"({vm.power_state}).",
                )
            vm.power(state)

        return self._task(context, vm, vm_reference(vm), work)

    def _create_snapshot(self, context: Context, arguments: dict[str, Any]) -> Any:
        vm = self._vm(context.call.this)
        memory = bool(arguments["memory"])
        quiesce = bool(arguments.get("quiesce")) or arguments.get("quiesceSpec") is not None
        quiesce = quiesce and not memory

        def work() -> Any:
            failed = quiesce and self._faults.fire(QuiesceFail, Place(vm.moid))
            if failed:
                raise named_fault(failed.kind.fault, "The guest could not be quiesced.")
            self._reset_tracking(vm)
            made = vm.create_snapshot(
                arguments["name"],
                arguments["description"] or "",
                quiesce=quiesce,
                memory=memory,
                without_change_ids=self._without_change_ids(vm),
            )
            return vim.vm.Snapshot(made.moid)

        return self._task(context, vm, vm_reference(vm), work)

    def _reset_tracking(self, vm: SimulatedVm) -> None:
        for one, disks in self._aimed(ChangeIdUuid, vm):
            tracked = [disk for disk in disks if disk.tracking]
            if tracked and one.fire(Place(vm.moid), disks=[disk.key for disk in tracked]):
                for disk in tracked:
                    disk.reset_tracking()

    def _without_change_ids(self, vm: SimulatedVm) -> frozenset[int]:
        keys: set[int] = set()
        for one, disks in self._aimed(ChangeIdMissing, vm):
            hit = [disk.key for disk in disks if disk.in_snapshots]
            if vm.change_tracking_enabled and hit and one.fire(Place(vm.moid), disks=hit):
                keys.update(hit)
        return frozenset(keys)

    def _aimed(self, kind: type[K], vm: SimulatedVm) -> list[tuple[Armed[K], list[SimulatedDisk]]]:
        """The faults of a kind that are set for a VM's disks, with these: one chance for all."""
        found: dict[int, tuple[Armed[K], list[SimulatedDisk]]] = {}
        for disk in vm.disks:
            for one in self._faults.look(kind, Place(vm.moid, disk.key)):
                found.setdefault(one.number, (one, []))[1].append(disk)
        return list(found.values())

    def _remove_snapshot(self, context: Context, arguments: dict[str, Any]) -> Any:
        vm, snapshot = self._snapshot(context.call.this)

        def work() -> None:
            failed = self._faults.fire(SnapshotRemoveFail, Place(vm.moid))
            if not failed or failed.kind.gone:
                vm.remove_snapshot(
                    snapshot,
                    children=bool(arguments["removeChildren"]),
                    consolidate=arguments["consolidate"] is not False and not failed,
                )
            if failed:
                raise named_fault(
                    failed.kind.fault, "The snapshot could not be removed.", vm.vmx_path
                )

        return self._task(context, vm, vm_reference(vm), work)

    def _remove_all_snapshots(self, context: Context, _arguments: dict[str, Any]) -> Any:
        vm = self._vm(context.call.this)
        return self._task(context, vm, vm_reference(vm), vm.remove_all_snapshots)

    def _revert(self, context: Context, _arguments: dict[str, Any]) -> Any:
        vm, snapshot = self._snapshot(context.call.this)
        tracking = self._behaviour.reverted_tracking
        return self._task(
            context, vm, vm_reference(vm), lambda: vm.revert(snapshot, tracking=tracking)
        )

    def _consolidate(self, context: Context, _arguments: dict[str, Any]) -> Any:
        vm = self._vm(context.call.this)
        return self._task(context, vm, vm_reference(vm), vm.consolidate)

    def _changed_areas(self, context: Context, arguments: dict[str, Any]) -> Any:
        vm = self._vm(context.call.this)
        snapshot: Snapshot | None = None
        if arguments["snapshot"] is not None:
            owner, snapshot = self._snapshot(arguments["snapshot"])
            if owner is not vm:
                raise invalid_argument("snapshot")
        start = int(arguments["startOffset"])
        at = Place(vm.moid, arguments["deviceKey"])
        if self._faults.fire(FileFault, at, lambda kind: start >= kind.at_offset, offset=start):
            raise named_fault("FileFault", "Error caused by file", vm.vmx_path)
        try:
            capacity, areas = vm.changed_areas(
                snapshot,
                arguments["deviceKey"],
                start,
                arguments["changeId"],
                star=self._behaviour.star,
            )
        except OperationRefused as error:
            raise refused(error, vm.vmx_path) from error
        allocated = arguments["changeId"] == "*"
        answer = self._answers.answer(at, start, capacity, areas, allocated=allocated)
        return _CHANGE_INFO(
            startOffset=answer.start,
            length=answer.length,
            changedArea=[
                _CHANGE_INFO.DiskChangeExtent(start=one.start, length=one.length)
                for one in answer.areas
            ],
        )

    def _disk_ticket(self, arguments: dict[str, Any], *, writable: bool) -> Any:
        key = arguments["diskDeviceKey"]
        if not any(disk.key == key for disk in self._vm(arguments["vm"]).disks):
            raise invalid_argument("diskDeviceKey")
        return self._ticket(arguments, key, writable=writable)

    def _ticket(self, arguments: dict[str, Any], key: int | None, *, writable: bool) -> Any:
        ticket: Ticket = self._tickets.issue(self._vm(arguments["vm"]), key, writable=writable)
        host, port = self._nfc_address()
        flavour = self._behaviour.site
        return vim.HostServiceTicket(
            host=host if flavour.ticket_names_host else None,
            port=port,
            sslThumbprint=self._certificate.sha1,
            service=flavour.nfc_service,
            serviceVersion=SERVICE_VERSION,
            sessionId=ticket.token,
        )
