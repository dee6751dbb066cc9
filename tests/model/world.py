"""A whole installation in one process: a simulated site, a hub on SQLite, an agent, a client.

Everything between them is real: SOAP and NFC over TLS, gRPC on loopback, layers on disk.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.config import AgentSettings
from agent.main import run_agent
from agent.vsphere.settings import VsphereSettings
from hub.catalog.engine import Catalog
from hub.config import HubSettings
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.main import Hub
from sendense import Backup, BackupStatus, BackupType, Client
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite

SITE: Final = "lab"
DEADLINE_S: Final = 60.0
_THREAD_END_S: Final = 30.0


class AgentThread:
    """The agent's own wiring in a thread; started and stopped as often as a test wants."""

    def __init__(self, settings: AgentSettings, vsphere: VsphereSettings) -> None:
        self._settings = settings
        self._vsphere = vsphere
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As SIGTERM does; raises what the agent raised. May be called twice."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(_THREAD_END_S)
        assert not self._thread.is_alive(), "the agent does not stop"
        self._thread = None
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            run_agent(self._settings, self._vsphere, self._stopping)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._error = error


@dataclass(frozen=True)
class World:
    """What a test sees of it: the site from inside, the product through its public client."""

    folder: Path
    site: SimulatedSite
    vm: SimulatedVm
    hub: Hub
    client: Client
    agent: AgentThread

    def start(
        self,
        *,
        vm: SimulatedVm | None = None,
        repository: str = "",
        full: bool = False,
        quiesce: bool = False,
    ) -> str:
        """Start a backup, of the world's VM unless another is given; its job id."""
        return self.client.start_backup(
            (vm or self.vm).instance_uuid,
            repository=repository,
            backup_type=BackupType.FULL if full else BackupType.UNSPECIFIED,
            quiesce=quiesce,
        ).job_id

    def wait(self, job_id: str) -> Backup:
        """The job once it has ended, however it did."""
        return self.client.wait(job_id, timeout_s=DEADLINE_S)

    def wait_frozen(self, job_id: str) -> None:
        """Wait until the job's snapshot stands: what the guest does now is not in it."""
        for state in self.client.watch(job_id):
            if state.disks or state.completed_at.seconds:
                return

    def back_up(self, *, meanwhile: Callable[[], None] | None = None, **options: Any) -> Backup:
        """A whole backup, ended however it did; `meanwhile` runs once the disks are frozen."""
        job_id = self.start(**options)
        if meanwhile is not None:
            self.wait_frozen(job_id)
            meanwhile()
        return self.wait(job_id)

    def completed(self, **options: Any) -> Backup:
        """A backup that must complete."""
        job = self.back_up(**options)
        assert job.status == BackupStatus.COMPLETED, job
        return job

    def restore(self, job_id: str, disk_index: int) -> Path:
        """A disk of a restore point as a raw file, through the public client."""
        path = self.folder / "restored.raw"
        self.client.restore_disk(job_id, disk_index, path, overwrite=True, threads=1)
        return path

    def restored(self, job_id: str, disk_index: int = 0) -> bytes:
        """The bytes of a restored disk; for small disks."""
        return self.restore(job_id, disk_index).read_bytes()

    def layer(self, job_id: str, disk_index: int = 0) -> Path:
        """The layer file of a disk."""
        job = self.client.get_backup(job_id)
        folder = self.client.get_repository(job.repository_id).path
        return Path(folder) / job.disks[disk_index].qcow2_path

    def wait_agent(self) -> None:
        """Wait until the agent is connected and has reported the site's VMs."""

        def there() -> bool:
            connected = any(one.connected for one in self.client.list_agents())
            known = {one.vmware_vm_id for one in self.client.list_virtual_machines()}
            return connected and known >= {vm.moid for vm in self.site.vms}

        wait_until("the agent has reported the site's VMs", there)


def vsphere_settings(site: SimulatedSite, *, timeout_s: float = 20) -> VsphereSettings:
    """What an agent needs to log in to the site."""
    return VsphereSettings(
        address=site.address,
        user=site.user,
        password=site.password,
        certificate_sha256=site.certificate_sha256,
        ca_file=None,
        transport="nbdssl",
        site=SITE,
        timeout_s=timeout_s,
    )


@contextmanager
def running_world(
    folder: Path, *, vm_name: str = "pgtest1", timeout_s: float = 20, **agent_settings: Any
) -> Iterator[World]:
    """A site with one VM without disks, a hub and an agent that has reported it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = HubSettings(
        listen="127.0.0.1:0",
        catalog_url=f"sqlite:///{folder / 'catalog.db'}",
        state_dir=folder,
        log_level="warning",
    )
    catalog = Catalog(settings.catalog_url)
    catalog.upgrade()
    create_repository(Parts(catalog), name="default", path=str(folder / "repository"), default=True)
    catalog.close()
    with SimulatedSite(folder / "site") as site:
        vm = site.add_vm(vm_name)
        vsphere = vsphere_settings(site, timeout_s=timeout_s)
        with Hub(settings) as hub, Client(str(hub.address)) as client:
            configured = AgentSettings(
                site=SITE,
                hub_address=str(hub.address),
                vsphere={"address": vsphere.address, "user": vsphere.user},
                compress_threads=1,
                **agent_settings,
            )
            world = World(folder, site, vm, hub, client, AgentThread(configured, vsphere))
            world.agent.start()
            try:
                world.wait_agent()
                yield world
            finally:
                world.agent.stop()


def wait_until(what: str, probe: Callable[[], bool]) -> None:
    """Ask until it is so. Raises AssertionError naming `what`."""
    pause = threading.Event()
    for _ in range(round(DEADLINE_S / 0.01)):
        if probe():
            return
        pause.wait(0.01)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")
