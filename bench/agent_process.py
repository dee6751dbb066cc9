"""The agent's side of the benchmark, a process of its own: `python -m bench.agent_process`.

The session with the hub is scripted (one site, one VM, one disk); the upload
is the product's own, agent.upload over a channel of its own.
"""

import argparse
import itertools
import queue
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from agent.disk_reads import DiskReads
from agent.pipeline import EncoderPool
from agent.read_plan import ReadPlan
from agent.upload import upload_disk
from bench.file_reader import FileReader
from sendense.channel import open_channel
from sendense.v1 import agent_session_pb2 as pb
from sendense.v1 import backup_pb2, inventory_pb2
from sendense.v1.agent_session_pb2_grpc import AgentSessionServiceStub

SITE: Final = "bench"
VM_NAME: Final = "bench"
MOREF: Final = "vm-1"
DISK_KEY: Final = 2000
# Half the shortest interval that a hub asks for.
HEARTBEAT_S: Final = 2.0


class ScriptedAgent:
    """Answers the hub's commands for a VM whose only disk is a raw file."""

    def __init__(self, hub: str, image: Path) -> None:
        self._hub = hub
        self._image = image
        self._capacity = image.stat().st_size
        self._instance_uuid = str(uuid.uuid4())
        self._disk_uuid = str(uuid.uuid4())
        self._change_numbers = itertools.count(1)
        self._events: queue.SimpleQueue[pb.SessionRequest] = queue.SimpleQueue()

    def run(self) -> None:
        """Serve jobs until the hub ends the session or the process is told to stop."""
        with closing(open_channel(self._hub)) as channel, EncoderPool() as encoders:
            commands = AgentSessionServiceStub(channel).Session(self._requests())
            for command in commands:
                self._obey(command, encoders)

    def _requests(self) -> Iterator[pb.SessionRequest]:
        yield pb.SessionRequest(
            register=pb.AgentRegister(
                site=SITE,
                hostname="bench",
                version="0",
                vsphere=inventory_pb2.VsphereEndpoint(
                    address="none", full_name="benchmark", api_type="HostAgent", api_version="8.0"
                ),
            )
        )
        yield self._inventory()
        while True:
            try:
                yield self._events.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                yield pb.SessionRequest(heartbeat=pb.AgentHeartbeat())

    def _obey(self, command: pb.SessionResponse, encoders: EncoderPool) -> None:
        match command.WhichOneof("command"):
            case "refresh_inventory":
                self._events.put(self._inventory())
            case "start_job":
                self._events.put(self._opened(command.start_job.job_id))
            case "job_plan":
                self._upload(command.job_plan, encoders)
            case _:
                pass

    def _upload(self, plan: pb.JobPlan, encoders: EncoderPool) -> None:
        if [disk.backup_type for disk in plan.disks] != [backup_pb2.BACKUP_TYPE_FULL]:
            raise RuntimeError(f"the hub planned something else than one full backup: {plan}")
        with (
            closing(open_channel(self._hub, dedicated=True)) as channel,
            DiskReads(FileReader(self._image), str(self._image)) as reads,
        ):
            upload_disk(
                channel,
                reads,
                ReadPlan.allocated(reads.allocated_areas()),
                job_id=plan.job_id,
                disk_index=0,
                encoders=encoders,
            )
        self._events.put(pb.SessionRequest(job_uploaded=pb.JobUploaded(job_id=plan.job_id)))

    def _inventory(self) -> pb.SessionRequest:
        machine = inventory_pb2.VirtualMachine(
            name=VM_NAME,
            vmware_vm_id=MOREF,
            instance_uuid=self._instance_uuid,
            power_state="poweredOn",
            change_tracking_enabled=True,
            disks=[
                inventory_pb2.VirtualDisk(
                    vmware_disk_key=DISK_KEY,
                    disk_uuid=self._disk_uuid,
                    label="Hard disk 1",
                    capacity_bytes=self._capacity,
                    disk_mode="persistent",
                    file_name="[bench] bench/bench.vmdk",
                )
            ],
        )
        return pb.SessionRequest(inventory=pb.AgentInventory(virtual_machines=[machine]))

    def _opened(self, job_id: str) -> pb.SessionRequest:
        disk = pb.SnapshotDisk(
            disk_index=0,
            vmware_disk_key=DISK_KEY,
            disk_uuid=self._disk_uuid,
            label="Hard disk 1",
            capacity_bytes=self._capacity,
            change_id=f"52 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01/{next(self._change_numbers)}",
        )
        return pb.SessionRequest(
            job_opened=pb.JobOpened(
                job_id=job_id,
                snapshot="snapshot-1",
                consistency_level=backup_pb2.CONSISTENCY_LEVEL_CRASH,
                disks=[disk],
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hub", required=True)
    parser.add_argument("--image", type=Path, required=True)
    arguments = parser.parse_args()
    ScriptedAgent(arguments.hub, arguments.image).run()
