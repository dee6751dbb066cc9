"""A hub made of real gRPC services on a real port that records what agents send, and obeys scripts."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sendense.clusters import (
    CLUSTER_BYTES,
    REGION_BYTES,
    REGION_CLUSTERS,
    ZERO_DIGEST,
    cluster_count,
    cluster_digest,
)
from sendense.codec import ClusterDecoder, EncodedClusters, from_frame
from sendense.v1 import agent_session_pb2, upload_pb2
from sendense.v1.agent_session_pb2_grpc import (
    AgentSessionServiceServicer,
    add_AgentSessionServiceServicer_to_server,
)
from sendense.v1.upload_pb2_grpc import UploadServiceServicer, add_UploadServiceServicer_to_server
from shared.errors import SendenseError
from shared.grpc_errors import abort_with

DEADLINE_S = 20.0


@dataclass
class Upload:
    """What came of one disk."""

    open: upload_pb2.UploadOpen
    batches: list[EncodedClusters] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    finish: upload_pb2.UploadFinish | None = None

    @property
    def sizes(self) -> dict[int, int]:
        """Stored size of each cluster that came."""
        return {
            number: size
            for batch in self.batches
            for number, size in zip(batch.numbers.tolist(), batch.sizes.tolist(), strict=True)
        }

    def apply_to(self, disk: bytearray) -> None:
        """Write what came over the bytes of a disk."""
        decoder = ClusterDecoder()
        for batch in self.batches:
            for number, cluster in decoder.decode(batch):
                start = number * CLUSTER_BYTES
                end = min(len(disk), start + CLUSTER_BYTES)
                disk[start:end] = cluster[: end - start]


# Called with the upload and the frames received so far, before a frame is taken.
UploadScript = Callable[[Upload, grpc.ServicerContext], None]
DigestsScript = Callable[[upload_pb2.BaseDigestsRequest, grpc.ServicerContext], None]


class DiskHasNoBase(SendenseError):
    code = "DISK_HAS_NO_BASE"
    status = grpc.StatusCode.FAILED_PRECONDITION
    text = "the disk has no base"


class LayerDamaged(SendenseError):
    code = "LAYER_DAMAGED"
    status = grpc.StatusCode.DATA_LOSS
    text = "the layer of the last backup is damaged"


class RecordingHub(UploadServiceServicer, AgentSessionServiceServicer):
    """Serves on 127.0.0.1; a context manager. `sessions` gets each session as it registers."""

    def __init__(self, port: int = 0) -> None:
        self.uploads: dict[tuple[str, int], Upload] = {}
        self.sessions: queue.Queue[HubSession] = queue.Queue()
        self.before_frame: UploadScript = lambda upload, context: None
        self.before_seal: UploadScript = lambda upload, context: None
        self.after_progress: Callable[[Upload], None] = lambda upload: None
        # What the base of a disk holds, as large as the disk; none: it has no base.
        self.bases: dict[tuple[str, int], bytes] = {}
        self.digests_asked: list[upload_pb2.BaseDigestsRequest] = []
        self.before_digests: DigestsScript = lambda request, context: None
        self.before_register: Callable[[grpc.ServicerContext], None] = lambda context: None
        self.ack_every = 1
        self.capacity_bytes = 1 << 40
        self.heartbeat_interval_s = 1
        self.agent_id = "agent-1"
        self.live_job_ids: list[str] = []
        self.closes_jobs = True
        # Whether it answers the end of a job as it comes; else tests do.
        self.answers_ends = True
        self.closing = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", 8 << 20), ("grpc.so_reuseport", 0)],
        )
        add_UploadServiceServicer_to_server(self, self._server)
        add_AgentSessionServiceServicer_to_server(self, self._server)
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        assert self.port, f"port {port} cannot be bound"
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def next_session(self) -> "HubSession":
        return self.sessions.get(timeout=DEADLINE_S)

    def close(self) -> None:
        self.closing.set()
        assert self._server.stop(grace=0).wait(DEADLINE_S)

    def __enter__(self) -> "RecordingHub":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def UploadDisk(
        self,
        request_iterator: Iterator[upload_pb2.UploadDiskRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.UploadDiskResponse]:
        upload: Upload | None = None
        after = -1
        for request in request_iterator:
            match request.WhichOneof("part"):
                case "open":
                    upload = Upload(request.open)
                    self.uploads[request.open.job_id, request.open.disk_index] = upload
                    yield upload_pb2.UploadDiskResponse(opened=upload_pb2.UploadOpened())
                case "progress":
                    assert upload is not None
                    upload.progress.append(request.progress.bytes_read)
                    self.after_progress(upload)
                case "frame":
                    assert upload is not None
                    self.before_frame(upload, context)
                    batch = from_frame(
                        request.frame,
                        cluster_limit=cluster_count(self.capacity_bytes),
                        after_cluster=after,
                    )
                    after = batch.last_cluster
                    upload.batches.append(batch)
                    if self.ack_every and len(upload.batches) % self.ack_every == 0:
                        yield upload_pb2.UploadDiskResponse(
                            ack=upload_pb2.UploadAck(
                                durable_frames=len(upload.batches), durable_through_cluster=after
                            )
                        )
                case "finish":
                    assert upload is not None
                    upload.finish = request.finish
                    self.before_seal(upload, context)
                    stored = sum(batch.payload_bytes for batch in upload.batches)
                    yield upload_pb2.UploadDiskResponse(
                        sealed=upload_pb2.UploadSealed(root_digest=b"r" * 32, bytes_stored=stored)
                    )
                    return

    def BaseDigests(
        self,
        request_iterator: Iterator[upload_pb2.BaseDigestsRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.BaseDigestsResponse]:
        base: bytes | None = None
        for request in request_iterator:
            self.digests_asked.append(request)
            self.before_digests(request, context)
            if base is None:
                base = self.bases.get((request.job_id, request.disk_index))
                if base is None:
                    abort_with(context, DiskHasNoBase())
            else:
                assert not request.job_id and not request.disk_index
            yield _digests_of(base, request)

    def Session(
        self,
        request_iterator: Iterator[agent_session_pb2.SessionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[agent_session_pb2.SessionResponse]:
        self.before_register(context)
        session = HubSession(
            next(request_iterator).register, self.closes_jobs and self.answers_ends
        )
        threading.Thread(target=session.record, args=(request_iterator,), daemon=True).start()
        yield agent_session_pb2.SessionResponse(
            registered=agent_session_pb2.SessionRegistered(
                agent_id=self.agent_id,
                heartbeat_interval_s=self.heartbeat_interval_s,
                live_job_ids=self.live_job_ids,
                closes_jobs=self.closes_jobs,
            )
        )
        self.sessions.put(session)
        while not self.closing.is_set():
            try:
                command = session.commands.get(timeout=0.05)
            except queue.Empty:
                if session.agent_left.is_set():
                    return
                continue
            if command is None:
                return
            yield command


def _digests_of(
    base: bytes, request: upload_pb2.BaseDigestsRequest
) -> upload_pb2.BaseDigestsResponse:
    assert request.region * REGION_BYTES < len(base), "a region beyond the disk"
    first = request.region * REGION_CLUSTERS
    beyond = min(first + REGION_CLUSTERS, cluster_count(len(base)))
    numbers = np.frombuffer(request.cluster_numbers, "<u4").tolist() or list(range(first, beyond))
    assert numbers == sorted(set(numbers)) and first <= numbers[0] <= numbers[-1] < beyond
    digests = b"".join(
        cluster_digest(
            base[n * CLUSTER_BYTES : (n + 1) * CLUSTER_BYTES].ljust(CLUSTER_BYTES, b"\0")
        )
        for n in numbers
    )
    all_zero = digests == ZERO_DIGEST * len(numbers)
    return upload_pb2.BaseDigestsResponse(
        region=request.region, digests=b"" if all_zero else digests, all_zero=all_zero
    )


class HubSession:
    """One agent's session as the hub sees it: events by kind, commands to give."""

    def __init__(
        self, register: agent_session_pb2.AgentRegister, answers_ends: bool = True
    ) -> None:
        self.register = register
        self._answers_ends = answers_ends
        self.commands: queue.Queue[agent_session_pb2.SessionResponse | None] = queue.Queue()
        self.agent_left = threading.Event()
        self._events: dict[str, queue.Queue[agent_session_pb2.SessionRequest]] = {
            name: queue.Queue()
            for name in (
                "heartbeat",
                "inventory",
                "job_opened",
                "job_read",
                "job_uploaded",
                "job_failed",
            )
        }

    def record(self, requests: Iterator[agent_session_pb2.SessionRequest]) -> None:
        try:
            for request in requests:
                kind = request.WhichOneof("event")
                if self._answers_ends and kind in ("job_uploaded", "job_failed"):
                    job_id = getattr(request, kind).job_id
                    self.command(job_closed=agent_session_pb2.JobClosed(job_id=job_id))
                self._events[kind].put(request)
        except Exception:  # noqa: BLE001 - the stream broke; tests look at agent_left
            pass
        finally:
            self.agent_left.set()

    def command(self, **command: object) -> None:
        """Give one command, such as start_job=StartJob(...)."""
        self.commands.put(agent_session_pb2.SessionResponse(**command))

    def end(self) -> None:
        """End the session from the hub's side, in order."""
        self.commands.put(None)

    def event(self, kind: str) -> object:
        """The next event of that kind."""
        return getattr(self._events[kind].get(timeout=DEADLINE_S), kind)

    def has(self, kind: str) -> bool:
        return not self._events[kind].empty()
