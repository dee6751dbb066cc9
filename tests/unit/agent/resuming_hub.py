"""A recording hub that keeps what is durable of a layer when a call breaks, and goes on behind it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from sendense.clusters import CLUSTER_BYTES, cluster_count
from sendense.codec import ClusterDecoder, EncodedClusters, from_frame
from sendense.v1 import upload_pb2
from tests.unit.agent.recording_hub import RecordingHub, Upload

Answer = upload_pb2.UploadDiskResponse
SEALED = Answer(sealed=upload_pb2.UploadSealed(root_digest=b"r" * 32, bytes_stored=7))
BEFORE_OPENED, AT_FINISH, SEALED_UNTOLD = "before opened", "at finish", "sealed, untold"


def hang_up(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "the line is dead")


@dataclass
class Break:
    """How one call ends: behind so many frames of it, or at a named place."""

    at: int | str
    how: Callable[[grpc.ServicerContext], None] = hang_up
    fired: bool = False


@dataclass
class Layer:
    """What is durable of one disk."""

    plan_digest: bytes
    batches: list[EncodedClusters] = field(default_factory=list)
    sealed: bool = False

    def opened(self) -> upload_pb2.UploadOpened:
        return upload_pb2.UploadOpened(
            durable_frames=len(self.batches),
            durable_through_cluster=self.batches[-1].last_cluster if self.batches else 0,
            durable_clusters=sum(len(batch) for batch in self.batches),
            durable_payload_bytes=sum(batch.payload_bytes for batch in self.batches),
        )


class ResumingHub(RecordingHub):
    """`breaks` is for the first calls, one each; calls behind them are served to the end."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.breaks: list[Break] = []
        self.calls: list[Upload] = []
        self.layer: Layer | None = None
        # So many frames become durable together; whether the agent hears of it.
        self.durable_every = 1
        self.acks_told = True
        self.opening: Callable[[Layer], upload_pb2.UploadOpened] = Layer.opened
        self.payload_bytes_received = 0

    def __enter__(self) -> "ResumingHub":
        return self

    def UploadDisk(
        self,
        request_iterator: Iterator[upload_pb2.UploadDiskRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[upload_pb2.UploadDiskResponse]:
        end = self.breaks[len(self.calls)] if len(self.calls) < len(self.breaks) else None

        def at(place: int | str) -> None:
            if end is not None and end.at == place:
                end.fired = True
                end.how(context)

        opening = next(request_iterator).open
        call = Upload(opening)
        self.calls.append(call)
        at(BEFORE_OPENED)
        layer = self._layer_for(opening)
        if layer.sealed:
            yield SEALED
            return
        yield Answer(opened=self.opening(layer))
        pending: list[EncodedClusters] = []
        at(0)
        for request in request_iterator:
            match request.WhichOneof("part"):
                case "frame":
                    self.before_frame(call, context)
                    pending.append(self._frame(request.frame, layer, pending))
                    call.batches.append(pending[-1])
                    self.payload_bytes_received += pending[-1].payload_bytes
                    if len(pending) >= self.durable_every:
                        layer.batches += pending
                        pending.clear()
                        if self.acks_told:
                            yield _ack(layer)
                    at(len(call.batches))
                case "progress":
                    call.progress.append(request.progress.bytes_read)
                case "finish":
                    call.finish = request.finish
                    layer.batches += pending
                    at(AT_FINISH)
                    _require_whole(layer, request.finish)
                    layer.sealed = True
                    at(SEALED_UNTOLD)
                    yield SEALED
                    return

    def restored(self, base: "FarDisk") -> bytes:
        """What a restore of the layer over that base has where the disk has data."""
        assert self.layer is not None and self.layer.sealed
        disk, decoder = bytearray(base.data), ClusterDecoder()
        for batch in self.layer.batches:
            for number, cluster in decoder.decode(batch):
                start = number * CLUSTER_BYTES - base.start
                assert start >= 0
                end = min(len(disk), start + CLUSTER_BYTES)
                disk[start:end] = cluster[: end - start]
        return bytes(disk)

    def _layer_for(self, opening: upload_pb2.UploadOpen) -> Layer:
        if self.layer is None or self.layer.plan_digest != opening.plan_digest:
            self.layer = Layer(opening.plan_digest)
        return self.layer

    def _frame(self, frame, layer: Layer, pending: list[EncodedClusters]) -> EncodedClusters:  # type: ignore[no-untyped-def]
        before = (layer.batches + pending)[-1:]
        return from_frame(
            frame,
            cluster_limit=cluster_count(self.capacity_bytes),
            after_cluster=before[0].last_cluster if before else -1,
        )


def _ack(layer: Layer) -> Answer:
    return Answer(
        ack=upload_pb2.UploadAck(
            durable_frames=len(layer.batches),
            durable_through_cluster=layer.batches[-1].last_cluster,
        )
    )


def _require_whole(layer: Layer, finish: upload_pb2.UploadFinish) -> None:
    have = layer.opened()
    assert (finish.frame_count, finish.cluster_count, finish.payload_bytes) == (
        have.durable_frames,
        have.durable_clusters,
        have.durable_payload_bytes,
    ), f"{finish} is not {have}"


class FarDisk:
    """Bytes of a large disk that has data only from `start` on; costs no memory before."""

    def __init__(self, start: int, data: bytes) -> None:
        assert start % CLUSTER_BYTES == 0
        self.start, self.data = start, data

    def __len__(self) -> int:
        return self.start + len(self.data)

    def __getitem__(self, where: slice) -> bytes:
        begin, end, _ = where.indices(len(self))
        zeros = bytes(max(0, min(end, self.start) - begin))
        return zeros + self.data[max(0, begin - self.start) : max(0, end - self.start)]
