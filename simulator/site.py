"""A simulated site: one ESXi host with its VMs, its API and its NFC service."""

import fcntl
import os
import secrets
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from simulator.behaviour import Behaviour
from simulator.certificate import HostCertificate, host_certificate
from simulator.disks.disk import DiskSpec
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.machines import SimulatedVm
from simulator.nfc.authd import AuthDaemon
from simulator.nfc.tickets import Tickets
from simulator.soap.collector import Changes
from simulator.soap.collector_methods import CollectorMethods
from simulator.soap.host_objects import default_host_name
from simulator.soap.inventory import Inventory
from simulator.soap.methods import Methods
from simulator.soap.server import SoapServer
from simulator.soap.sessions import Sessions
from simulator.soap.tasks import Tasks
from simulator.soap.vm_methods import VmMethods

__all__ = ["DiskSpec", "SimulatedSite"]

_DATASTORE_FOLDER = "datastore1"
_PASSWORD_FILE = "password"
_LOCK_FILE = "lock"
_TASKS_END_S = 10.0


class SimulatedSite:
    """A running ESXi host. `with` starts it; leaving ends it. Any thread may call.

    Its disks live in `state_dir` and start anew each time; the certificate and the
    password are kept, so that clients which pinned them find the same host.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        listen: str = "127.0.0.2",
        port: int = 0,
        nfc_port: int = 0,
        user: str = "root",
        password: str | None = None,
        record_snapshots: bool = False,
        behaviour: Behaviour | None = None,
    ) -> None:
        """Listens at once (port 0: any free one) and serves from `start` on."""
        self.state_dir = state_dir
        self.user = user
        self.host_name = default_host_name()
        self.host_uuid = str(uuid.uuid4())
        self.behaviour = behaviour or Behaviour()
        self.recorded = state_dir / "recorded"
        self._record = record_snapshots
        self._vms: list[SimulatedVm] = []
        self._moids = count(1)
        self._lock = threading.Lock()
        self._changes = Changes()
        self.faults = FaultBoard(self._place, self._changes.touched)
        self._prepare(password)
        self.password = (state_dir / _PASSWORD_FILE).read_text(encoding="utf-8").strip()
        self.certificate = host_certificate(state_dir, listen)
        self.tickets = Tickets()
        self.sessions = Sessions(lambda: self.behaviour.session_idle_s)
        self.tasks = Tasks(self._changes.touched, self.faults)
        self._authd = AuthDaemon(
            (listen, nfc_port),
            self.certificate,
            self.tickets,
            self.behaviour,
            self.faults,
            self.expire_sessions,
        )
        try:
            self._soap = SoapServer(
                (listen, port), self.certificate.server_context(), self._methods(), self.sessions
            )
        except BaseException:
            self._authd.close()
            raise
        self._listen = listen

    def _prepare(self, password: str | None) -> None:
        """Take the state folder over; the disks of an earlier run go. Raises OSError."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = (self.state_dir / _LOCK_FILE).open("w", encoding="ascii")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_file.close()
            raise BlockingIOError(
                error.errno, f"another simulator uses the state folder {self.state_dir}"
            ) from error
        for folder in (self.state_dir / _DATASTORE_FOLDER, self.recorded):
            shutil.rmtree(folder, ignore_errors=True)
        file = self.state_dir / _PASSWORD_FILE
        if password is not None or not file.exists():
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as writer:
                writer.write((password or secrets.token_urlsafe(12)) + "\n")

    def _methods(self) -> Methods:
        inventory = Inventory(self, self.sessions, self.tasks)
        methods = Methods(
            inventory,
            self.sessions,
            self._changes,
            self.faults,
            user=self.user,
            password=self.password,
        )
        of_vms = VmMethods(
            inventory,
            self.tasks,
            self.tickets,
            self.behaviour,
            self.faults,
            nfc_address=lambda: (self._listen, self.nfc_port),
            certificate=self.certificate,
        )
        methods.add(of_vms.methods())
        of_collectors = CollectorMethods(
            inventory, self.sessions, self._changes, self.behaviour, self.faults
        )
        methods.add(of_collectors.methods())
        return methods

    @property
    def address(self) -> str:
        """host:port of the API."""
        return f"{self._listen}:{self._soap.server_address[1]}"

    @property
    def nfc_port(self) -> int:
        return self._authd.port

    @property
    def certificate_sha256(self) -> str:
        """Colon-separated, upper case."""
        return self.certificate.sha256

    @property
    def certificate_pem(self) -> str:
        return self.certificate.pem

    @property
    def password_file(self) -> Path:
        return self.state_dir / _PASSWORD_FILE

    @property
    def vms(self) -> list[SimulatedVm]:
        with self._lock:
            return list(self._vms)

    def vm(self, name: str) -> SimulatedVm:
        """The VM with a name. Raises KeyError for none and for several."""
        found = [one for one in self.vms if one.name == name]
        if len(found) != 1:
            raise KeyError(f"{len(found)} VMs are named {name!r}")
        return found[0]

    def find_vm(self, name: str) -> SimulatedVm:
        """The VM with a name or managed object id. Raises ValueError saying which there are."""
        vms = self.vms
        found = [one for one in vms if name in (one.name, one.moid)]
        if len(found) != 1:
            names = ", ".join(one.name for one in vms)
            raise ValueError(
                f"{'no' if not found else 'more than one'} VM {name!r}; there are: {names}"
            )
        return found[0]

    def _place(self, vm: str, disk: int | None) -> tuple[str, Place]:
        found = self.find_vm(vm)
        key = None if disk is None else found.find_disk(disk).key
        return found.name, Place(found.moid, key)

    def add_vm(self, name: str, disks: Sequence[DiskSpec] = (), **options: Any) -> SimulatedVm:
        """A new VM, running unless `power_state` says otherwise; options as SimulatedVm takes.

        Raises ValueError for disks that make no sense.
        """
        with self._lock:
            vm = SimulatedVm(
                str(next(self._moids)),
                name,
                folder=self.state_dir / _DATASTORE_FOLDER,
                touched=self._changes.touched,
                record_to=self.recorded if self._record else None,
                faults=self.faults,
                **options,
            )
            for spec in disks:
                vm.add_disk(spec)
            self._vms.append(vm)
        self._changes.touched()
        return vm

    def remove_vm(self, vm: SimulatedVm) -> None:
        """Unregister a VM; clients get ManagedObjectNotFound from now on."""
        with self._lock:
            self._vms.remove(vm)
        vm.close()
        self._changes.touched()

    def expire_sessions(self) -> int:
        """End all login sessions, as if they had been idle too long; how many there were."""
        ended = self.sessions.end_all()
        self._changes.touched()
        return ended

    @property
    def nfc_sessions(self) -> int:
        """NFC sessions that are open now."""
        return self._authd.sessions

    @property
    def most_nfc_sessions(self) -> int:
        """The most NFC sessions that were open at a time."""
        return self._authd.most_sessions

    def cut_nfc_connections(self) -> None:
        """Drop every NFC connection."""
        self._authd.drop_connections()

    def change_certificate(self, of: Literal["host", "nfc"] = "host") -> str:
        """A new certificate from now on; its SHA-256 thumbprint. Connections drop.

        "host": of the whole host, whose services restart: sessions end, too.
        "nfc": of the NFC service alone, so that it is not the one that tickets name.
        """
        if of not in ("host", "nfc"):
            raise ValueError(f"{of!r} is neither host nor nfc")
        certificate = self.certificate
        if of == "nfc":
            certificate = HostCertificate(self.state_dir / "nfc.crt", self.state_dir / "nfc.key")
        certificate.renew(self._listen)
        self._authd.present(certificate)
        self._authd.drop_connections()
        if of == "host":
            self._soap.present(certificate.server_context())
            self.expire_sessions()
            self._soap.drop_connections()
        return certificate.sha256

    def start(self) -> None:
        """Begin to serve."""
        self._soap.start()
        self._authd.start()

    def close(self) -> None:
        """Stop serving; may be called twice. The files stay."""
        self._changes.close()
        self.faults.close()
        closers: list[Callable[[], None]] = [self._soap.close, self._authd.close]
        for close in closers:
            close()
        self.tasks.wait_all(_TASKS_END_S)
        for vm in self.vms:
            vm.close()
        self._lock_file.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
