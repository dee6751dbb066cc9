"""What the agent and the hub keep in memory does not grow with the disks of a VM."""

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from sendense import BackupStatus, Client
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.crash.test_overload import high_water_mib
from tests.end_to_end.processes import Agent, Hub

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

MIB: Final = 1 << 20
# The few are enough that every buffer, thread and connection there is at a time was used once.
FEW, MANY = 15, 50
OF_CONTROLLER: Final = 15
# All that is on a disk, so much that it could not hide: 175 MiB on the disks more.
CONTENT_MIB: Final = 5
# The agent reads two disks at a time (disks_in_parallel), whatever their number, and the hub
# takes these two. For each of the 35 disks more they keep rows and a plan: a few KiB. The rest
# of this is for allocators that give nothing back; the data themselves would be far more.
MORE_MIB: Final = 64


def test_memory_does_not_grow_with_the_number_of_disks(tmp_path: Path) -> None:
    numbers = random.Random(40)
    with ExitStack() as cleanup:
        folder = tmp_path / "site"
        folder.mkdir()
        site = cleanup.enter_context(SimulatedSite(folder))
        for name, count in (("few", FEW), ("many", MANY)):
            site.add_vm(
                name,
                [
                    DiskSpec(
                        (CONTENT_MIB + 1) * MIB,
                        content=numbers.randbytes(CONTENT_MIB * MIB),
                        controller=index // OF_CONTROLLER,
                    )
                    for index in range(count)
                ],
            )
        hub = Hub(tmp_path)
        hub.start()
        cleanup.callback(hub.stop)
        agent = Agent(tmp_path / "agent", site, hub, name="lab")
        agent.start()
        cleanup.callback(agent.stop)
        client = cleanup.enter_context(hub.client())
        assert agent.program is not None
        assert hub.program is not None
        programs = {"agent": agent.program.process.pid, "hub": hub.program.process.pid}

        _back_up(client, "few", FEW)
        before = {name: high_water_mib(pid) for name, pid in programs.items()}
        _back_up(client, "many", MANY)
        grown = {name: high_water_mib(pid) - before[name] for name, pid in programs.items()}
        assert max(grown.values()) < MORE_MIB, (before, grown)


def _back_up(client: Client, vm: str, disks: int) -> None:
    job = client.wait(client.start_backup(vm).job_id, timeout_s=90)
    assert BackupStatus(job.status) is BackupStatus.COMPLETED, job.error
    assert job.disk_count == disks
    assert job.bytes_transferred >= disks * CONTENT_MIB * MIB
