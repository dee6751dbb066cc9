"""A scripted agent: real messages over real gRPC, encoded by the real codec."""

import queue
import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from uuid import uuid4

import grpc

from sendense.clusters import CLUSTER_BYTES
from sendense.codec import ClusterEncoder, EncodedClusters
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2, inventory_pb2
from sendense.v1 import upload_pb2 as upload_pb
from sendense.v1.agent_session_pb2_grpc import AgentSessionServiceStub
from sendense.v1.upload_pb2_grpc import UploadServiceStub

ANSWER_S = 20.0
MIB = 1 << 20


@dataclass
class FakeDisk:
    """A disk drawn as text: one letter a cluster, "." a hole, "0" a cluster of zeros."""

    content: str
    key: int = 2000
    uuid: str = "6000C29e-0000-0000-0000-000000000000"
    label: str = "Hard disk 1"
    change_id: str = "52 aa/1"
    capacity_bytes: int = 0

    def __post_init__(self) -> None:
        self.capacity_bytes = self.capacity_bytes or len(self.content) * CLUSTER_BYTES


@dataclass
class FakeVm:
    """A VM as the agent reports it."""

    name: str = "pgtest1"
    moref: str = "vm-1"
    instance_uuid: str = "5020-pgtest1"
    disks: list[FakeDisk] = field(default_factory=lambda: [FakeDisk("AB.C")])

    def message(self) -> inventory_pb2.VirtualMachine:
        return inventory_pb2.VirtualMachine(
            name=self.name,
            vmware_vm_id=self.moref,
            instance_uuid=self.instance_uuid,
            power_state="poweredOn",
            disks=[
                inventory_pb2.VirtualDisk(
                    vmware_disk_key=disk.key,
                    disk_uuid=disk.uuid,
                    label=disk.label,
                    capacity_bytes=disk.capacity_bytes,
                )
                for disk in self.disks
            ],
        )


def cluster(letter: str) -> bytes:
    """The 64 KiB that a letter stands for; each letter differs, most compress."""
    if letter in ".0":
        return bytes(CLUSTER_BYTES)
    if letter == "R":  # does not shrink
        return random.Random(letter).randbytes(CLUSTER_BYTES)
    return (f"{letter} of the alphabet; ".encode() * 4096)[:CLUSTER_BYTES]


def batches(content: str) -> list[EncodedClusters]:
    """The drawn clusters, one batch a cluster; holes are left out."""
    encoder = ClusterEncoder()
    return [
        encoder.encode(number, cluster(letter), keep_zeros=True)
        for number, letter in enumerate(content)
        if letter != "."
    ]


def raw_bytes(content: str) -> bytes:
    """The disk that the drawing stands for."""
    return b"".join(cluster(letter) for letter in content)


class FakeAgent:
    """A session with the hub; what it answers is up to the test.

    `more` are fields of AgentRegister: another session of the same run has the
    `run_id` of the first, and names the jobs that it holds in `job_ids`.
    """

    def __init__(
        self,
        address: str,
        site: str = "lab",
        vms: Iterable[FakeVm] = (),
        **more: Any,
    ) -> None:
        self.site = site
        register: dict[str, Any] = {"run_id": f"run-{uuid4().hex}", "keeps_jobs": True, **more}
        self.run_id: str = register["run_id"]
        self.vms = list(vms)
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 8 * MIB)]
        )
        self._out: queue.Queue[session_pb.SessionRequest | None] = queue.Queue()
        self._in: queue.Queue[session_pb.SessionResponse | grpc.RpcError | None] = queue.Queue()
        self._left: deque[session_pb.SessionResponse] = deque()
        self._call = AgentSessionServiceStub(self.channel).Session(iter(self._out.get, None))
        threading.Thread(target=self._listen, daemon=True).start()
        self.send(
            register=session_pb.AgentRegister(
                site=site, hostname="host-1", version="0.1.0", **register
            )
        )

    def _listen(self) -> None:
        try:
            for response in self._call:
                self._in.put(response)
            self._in.put(None)
        except grpc.RpcError as error:
            self._in.put(error)

    def send(self, **event: Any) -> None:
        """Send one event: `send(heartbeat=...)`."""
        self._out.put(session_pb.SessionRequest(**event))

    def next(self) -> session_pb.SessionResponse:
        """The next command. Raises the RPC's error."""
        return self._left.popleft() if self._left else self._take()

    def _take(self) -> session_pb.SessionResponse:
        answer = self._in.get(timeout=ANSWER_S)
        if isinstance(answer, grpc.RpcError):
            raise answer
        assert answer is not None, "the hub ended the session"
        return answer

    def ended(self) -> grpc.RpcError | None:
        """Wait for the session's end; commands are skipped."""
        while True:
            answer = self._in.get(timeout=ANSWER_S)
            if answer is None or isinstance(answer, grpc.RpcError):
                return answer

    def connect(self) -> "FakeAgent":
        """Registered, and the inventory is in."""
        self.registered: session_pb.SessionRegistered = self.expect("registered")
        self.agent_id = self.registered.agent_id
        self.report()
        return self

    def report(self) -> None:
        """Send the inventory and wait until the hub has it: it answers events in order."""
        self.send(
            inventory=session_pb.AgentInventory(virtual_machines=[vm.message() for vm in self.vms])
        )
        # An unknown job is closed, after what was sent before it is answered. Commands
        # that came before are left for `expect`.
        self.send(job_failed=session_pb.JobFailed(job_id="sync"))
        while (answer := self._take()).job_closed.job_id != "sync":
            self._left.append(answer)

    def expect(self, command: str) -> Any:
        """The next command, which is this one. JobClosed is passed over unless it is meant."""
        answer = self.next()
        while answer.WhichOneof("command") == "job_closed" != command:
            answer = self.next()
        assert answer.WhichOneof("command") == command, answer
        return getattr(answer, command)

    def closed(self, job_id: str) -> None:
        """Wait until the hub closes the job; it says nothing else before."""
        while self.expect("job_closed").job_id != job_id:
            pass

    def open_job(self, job_id: str, disks: Iterable[FakeDisk], **more: Any) -> None:
        """Answer StartJob with the snapshot's disks."""
        self.send(
            job_opened=session_pb.JobOpened(
                job_id=job_id,
                snapshot="snapshot-7",
                consistency_level=backup_pb2.CONSISTENCY_LEVEL_CRASH,
                disks=[
                    session_pb.SnapshotDisk(
                        disk_index=index,
                        vmware_disk_key=disk.key,
                        disk_uuid=disk.uuid,
                        label=disk.label,
                        capacity_bytes=disk.capacity_bytes,
                        change_id=disk.change_id,
                    )
                    for index, disk in enumerate(disks)
                ],
                **more,
            )
        )

    def upload(
        self, job_id: str, disk_index: int, content: str, **opening: Any
    ) -> upload_pb.UploadSealed:
        """Upload the drawn clusters to the end. Raises grpc.RpcError."""
        with Uploading(self.channel) as up:
            up.open(job_id, disk_index, bytes_planned=len(content) * CLUSTER_BYTES, **opening)
            for batch in batches(content):
                up.frame(batch)
            up.finish()
            return up.sealed()

    def run_job(self, job_id: str, disks: list[FakeDisk], **opened: Any) -> session_pb.JobPlan:
        """Play a whole job: open, upload what the drawings show, report; returns the plan."""
        self.open_job(job_id, disks, **opened)
        plan: session_pb.JobPlan = self.expect("job_plan")
        for disk in plan.disks:
            self.upload(job_id, disk.disk_index, disks[disk.disk_index].content)
        self.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
        return plan

    def close(self) -> None:
        """End the session without a word."""
        self._call.cancel()
        self._out.put(None)
        self.channel.close()

    def __enter__(self) -> "FakeAgent":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Uploading:
    """One UploadDisk RPC, driven message by message."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._out: queue.Queue[upload_pb.UploadDiskRequest | None] = queue.Queue()
        self.call = UploadServiceStub(channel).UploadDisk(
            iter(self._out.get, None), timeout=3 * ANSWER_S
        )
        self.frames = self.clusters = self.payload = self.planned = 0

    def open(self, job_id: str, disk_index: int, **more: Any) -> None:
        self.planned = more.get("bytes_planned", 0)
        self.put(open=upload_pb.UploadOpen(job_id=job_id, disk_index=disk_index, **more))

    def put(self, **part: Any) -> None:
        self._out.put(upload_pb.UploadDiskRequest(**part))

    def opened(self) -> upload_pb.UploadOpened:
        """Wait for it; what is durable counts as sent from here on."""
        opened = self.until("opened").opened
        self.frames = opened.durable_frames
        self.clusters = opened.durable_clusters
        self.payload = opened.durable_payload_bytes
        return opened

    def acknowledged(self, frames: int) -> None:
        """Wait until so many frames of the layer are durable."""
        while self.until("ack").ack.durable_frames < frames:
            pass

    def frame(self, batch: EncodedClusters) -> None:
        self.frames += 1
        self.clusters += len(batch)
        self.payload += batch.payload_bytes
        self.put(frame=batch.to_frame())

    def finish(self, **wrong: int) -> None:
        totals = {
            "frame_count": self.frames,
            "cluster_count": self.clusters,
            "payload_bytes": self.payload,
            "bytes_read": self.planned,
        } | wrong
        self.put(finish=upload_pb.UploadFinish(**totals))

    def half_close(self) -> None:
        self._out.put(None)

    def answers(self) -> Iterator[upload_pb.UploadDiskResponse]:
        """Raises grpc.RpcError when the hub ends the upload with an error."""
        yield from self.call

    def until(self, part: str) -> upload_pb.UploadDiskResponse:
        """Answers up to one of that kind."""
        for answer in self.call:
            if answer.WhichOneof("part") == part:
                return answer
        raise AssertionError(f"the upload ended without {part}")

    def sealed(self) -> upload_pb.UploadSealed:
        return self.until("sealed").sealed

    def __enter__(self) -> "Uploading":
        return self

    def __exit__(self, *exc: object) -> None:
        self.half_close()
        self.call.cancel()
