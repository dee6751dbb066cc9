"""A hub and an agent that can be killed, and a simulated site in the test's own process.

The site outlives them: its snapshots and disks can be looked at, and written to, while
nobody is there. Everything between them is real: SOAP and NFC over TLS, gRPC, files.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.config import AgentSettings, VsphereSection
from agent.vsphere.settings import VsphereSettings
from hub.catalog.engine import Catalog
from hub.config import HubSettings
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from sendense import Backup, BackupStatus, BackupType, Client
from sendense.errors import HubUnavailable
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.crash.children import Child
from tests.crash.fail_points import Trap
from tests.crash.programs import run_agent_of_site, run_hub
from tests.end_to_end.processes import wait_for
from tests.model.world import SITE, vsphere_settings

DEADLINE_S: Final = 60.0
# Small disks are acknowledged several times, too.
SMALL_STEPS: Final[dict[str, object]] = {"hub.jobs.receive_disk.upload.SYNC_BYTES": 1 << 20}
ENDED: Final = (BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.CANCELLED)


@dataclass
class Installation:
    """A site, a hub and an agent. What is set here counts from the next start of a program."""

    folder: Path
    site: SimulatedSite
    hub: Child
    agent: Child
    hub_settings: dict[str, Any] = field(default_factory=dict)
    agent_settings: dict[str, Any] = field(default_factory=dict)
    hub_constants: dict[str, object] = field(default_factory=lambda: dict(SMALL_STEPS))
    agent_constants: dict[str, object] = field(default_factory=dict)
    hub_address: str = "127.0.0.1:0"
    # Where the agent finds hub and vSphere, when not where they are.
    hub_seen_at: str = ""
    site_seen_at: str = ""
    vsphere_timeout_s: float = 3.0
    _client: Client | None = None

    # Programs.

    def start_hub(self, *traps: Trap, ready: bool = True) -> None:
        """`ready`: wait until it serves."""
        file = self.folder / "hub-ready.json"
        file.unlink(missing_ok=True)
        settings = HubSettings(
            listen=self.hub_address,
            catalog_url=self.catalog_url,
            state_dir=self.folder,
            log_level="info",
            **self.hub_settings,
        )
        self.hub.start((settings, file, self.hub_constants), traps)
        if ready:
            self.wait_hub()

    def wait_hub(self) -> None:
        """Wait until the hub serves."""

        def bound() -> str:
            assert self.hub.alive, f"the hub has ended\n{self.hub.tail()}"
            try:
                return str(json.loads((self.folder / "hub-ready.json").read_text())["address"])
            except (FileNotFoundError, ValueError):
                return ""

        self.hub_address = wait_for("the hub serves", bound)
        if self._client is not None:  # its connection would be tried again ever less often
            self._client.close()
        self._client = Client(self.hub_address)

    def start_agent(self, *traps: Trap, connected: bool = True) -> None:
        """`connected`: wait until the hub knows it and the site's VMs."""
        vsphere: VsphereSettings = vsphere_settings(self.site, timeout_s=self.vsphere_timeout_s)
        if self.site_seen_at:
            vsphere = VsphereSettings(**{**vars(vsphere), "address": self.site_seen_at})
        settings = AgentSettings(
            site=SITE,
            hub_address=self.hub_seen_at or self.hub_address,
            vsphere=VsphereSection(address=vsphere.address, user=vsphere.user),
            compress_threads=1,
            inventory_interval_s=1.0,
            **{"sample_least": 4, **self.agent_settings},
        )
        self.agent.start((settings, vsphere, self.agent_constants), traps)
        if connected:
            self.wait_agent()

    def wait_agent(self) -> None:
        """Wait until the agent has a session, and the hub knows all VMs."""

        def there() -> bool:
            assert self.agent.alive, f"the agent has ended\n{self.agent.tail()}"
            if not any(one.connected for one in self.client.list_agents()):
                return False
            known = {one.vmware_vm_id for one in self.client.list_virtual_machines()}
            return known >= {vm.moid for vm in self.site.vms}

        wait_for("the agent is connected", there)

    def start_what_is_dead(self) -> None:
        """Hub and agent as a supervisor would start them again."""
        if not self.hub.alive:
            self.start_hub()
        if not self.agent.alive:
            self.start_agent(connected=False)

    def close(self) -> None:
        """Everything ends at once."""
        if self._client is not None:
            self._client.close()
        self.agent.end()
        self.hub.end()

    # What the product shows.

    @property
    def client(self) -> Client:
        assert self._client is not None, "the hub has never run"
        return self._client

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.folder / 'catalog.db'}"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def order(self, vm: SimulatedVm, *, full: bool = False) -> str:
        """Ask for a backup; its job id. The hub may die before it answers: then it is asked again."""
        request = str(uuid.uuid4())
        while True:
            try:
                return self.client.start_backup(
                    vm.instance_uuid,
                    backup_type=BackupType.FULL if full else BackupType.UNSPECIFIED,
                    request_id=request,
                ).job_id
            except HubUnavailable:
                self.hub.wait_killed()
                self.start_hub()
                self.wait_agent()

    def wait_ended(self, job_id: str, deadline_s: float = DEADLINE_S) -> Backup:
        """The job once it has ended, however it did; the hub may be away meanwhile."""

        def ended() -> Backup | None:
            job = self.look(job_id)
            return job if job is not None and BackupStatus(job.status) in ENDED else None

        try:
            return wait_for(f"the end of {job_id}", ended, deadline_s)
        except AssertionError:
            raise AssertionError(f"{self.look(job_id)} does not end\n{self.logs()}") from None

    def look(self, job_id: str) -> Backup | None:
        """The job as it is; None while the hub does not answer."""
        try:
            return self.client.get_backup(job_id)
        except HubUnavailable:
            return None

    def completed(self, vm: SimulatedVm, **options: Any) -> Backup:
        """A backup that must complete."""
        job = self.wait_ended(self.order(vm, **options))
        assert BackupStatus(job.status) == BackupStatus.COMPLETED, f"{job}\n{self.logs()}"
        return job

    def layer(self, job: Backup, disk_index: int) -> Path:
        """The layer file of a disk."""
        return self.repository / job.disks[disk_index].qcow2_path

    def files(self) -> set[str]:
        """All files of the repository, relative."""
        return {
            str(Path(folder, name).relative_to(self.repository))
            for folder, _, names in os.walk(self.repository)
            for name in names
        }

    def restore(self, job: Backup, disk_index: int) -> Path:
        """A disk as a raw file, through the public client."""
        path = self.folder / "restored.raw"
        self.client.restore_disk(job.job_id, disk_index, path, overwrite=True, threads=1)
        return path

    def logs(self) -> str:
        """The ends of both logs."""
        return f"--- hub\n{self.hub.tail()}\n--- agent\n{self.agent.tail()}"


@contextmanager
def installation(
    folder: Path, *, site: SimulatedSite | None = None, **options: Any
) -> Iterator[Installation]:
    """A site without VMs and an empty repository; the programs are not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    catalog.upgrade()
    create_repository(Parts(catalog), name="default", path=str(folder / "repository"), default=True)
    catalog.close()
    with site or SimulatedSite(folder / "site") as running:
        made = Installation(
            folder,
            running,
            Child("hub", run_hub, folder / "hub.log"),
            Child("agent", run_agent_of_site, folder / "agent.log"),
            **options,
        )
        try:
            yield made
        finally:
            made.close()
