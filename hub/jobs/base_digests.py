"""What the base of a disk holds, told to the agent that compares the disk with it.

One thread takes the requests; the RPC's reads the base and answers, in their order.
The base is not deleted meanwhile, for a live job builds on it; once an upload has said
that it does without, what is still asked for may be told as damaged.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt
import structlog

from hub.catalog.models import BackupDisk
from hub.catalog.queries import find_disk
from hub.errors import DiskHasNoBase, DiskNotUploadable, JobEnded
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from hub.jobs.peer_stream import PeerStream, Rpc
from hub.jobs.repositories import layer_base, open_repository
from hub.jobs.states import Status
from hub.repository import BaseReader
from sendense.clusters import REGION_CLUSTERS, ZERO_DIGEST, region_count
from sendense.digests import clusters_in_region
from sendense.v1 import upload_pb2 as pb
from shared.errors import InvalidArgument, SendenseError

# Requests that wait for their answers here; those behind them wait in the connection.
ASKED_AHEAD: Final = 16
_log = structlog.get_logger(__name__)


def base_digests(
    parts: Parts, requests: Iterator[pb.BaseDigestsRequest], rpc: Rpc
) -> Iterator[pb.BaseDigestsResponse]:
    """Serve one BaseDigests RPC, until the requests end or the disk is sealed.

    Raises JobNotFound, DiskNotFound, JobEnded, DiskNotUploadable (it is sealed),
    DiskHasNoBase, LayerDamaged, RepositoryUnusable, InvalidArgument, CatalogUnavailable,
    HubStopping. Memory: one region.
    """
    telling = _Telling(parts, requests, rpc)
    threading.Thread(target=telling.take, name="base-digests", daemon=True).start()
    yield from telling.answers()


class _Telling:
    def __init__(self, parts: Parts, requests: Iterator[pb.BaseDigestsRequest], rpc: Rpc) -> None:
        self._parts = parts
        self._stream = PeerStream(requests, rpc, parts.leases)
        # Under the stream's condition.
        self._asked: deque[pb.BaseDigestsRequest] = deque()
        self._asked_all = False

    # The taking thread.

    def take(self) -> None:
        """Take the requests as they are answered, until the stream is over."""
        stream = self._stream
        try:
            while (request := stream.next()) is not None:
                with stream.changed:
                    stream.changed.wait_for(lambda: len(self._asked) < ASKED_AHEAD or stream.over())
                    self._asked.append(request)
                    stream.changed.notify_all()
        except grpc.RpcError:
            pass  # it broke: nobody hears an answer
        except Exception:  # noqa: BLE001 - nobody above to report a defect to
            _log.exception("base_digests_failed_unexpectedly", job_id=stream.job_id)
            stream.note(SendenseError())
        with stream.changed:
            self._asked_all = True
            stream.changed.notify_all()

    # The RPC's thread.

    def answers(self) -> Iterator[pb.BaseDigestsResponse]:
        """One answer a request. Raises what ends the RPC."""
        try:
            first = self._next()
            if first is None:
                return
            with self._open(first) as base:
                yield self._answer(base, first)
                while (request := self._next()) is not None:
                    if request.job_id:
                        raise InvalidArgument("job_id", "is given in the first request alone")
                    yield self._answer(base, request)
        except SendenseError:
            # Files may go as soon as the job has ended: that it did is the reason then.
            self._raise_noted()
            raise
        finally:
            self._parts.uploads.leave_reader(self._stream)
            self._stream.released.set()

    def _next(self) -> pb.BaseDigestsRequest | None:
        stream = self._stream
        with stream.changed:
            stream.changed.wait_for(lambda: bool(self._asked) or self._asked_all or stream.over())
            if stream.over():
                self._raise_noted()
                return None
            if not self._asked:
                return None
            request = self._asked.popleft()
            stream.changed.notify_all()
            return request

    def _raise_noted(self) -> None:
        if self._stream.error is not None:
            raise self._stream.error

    def _open(self, first: pb.BaseDigestsRequest) -> BaseReader:
        if not first.job_id:
            raise InvalidArgument("job_id", "the first request names the disk")
        self._stream.job_id, self._stream.disk_index = first.job_id, first.disk_index
        self._stream.at_work()
        # Before the rows are looked at: whoever ends the job after that finds it.
        self._parts.uploads.enter_reader(self._stream)
        disk = self._find_disk()
        if disk.job.status is not Status.RUNNING:
            raise JobEnded(first.job_id, disk.job.status)
        if disk.sealed_at is not None:
            raise DiskNotUploadable(first.job_id, first.disk_index, "it is sealed")
        if disk.base is None:
            raise DiskHasNoBase(first.job_id, first.disk_index)
        repository = open_repository(disk.job.context.repository)
        return repository.open_base(layer_base(disk.base), disk.capacity_bytes)

    @retry_catalog
    def _find_disk(self) -> BackupDisk:
        with self._parts.catalog.read() as session:
            disk = find_disk(session, self._stream.job_id, self._stream.disk_index)
            _ = disk.job.context.repository  # loaded while there is a session
            return disk

    def _answer(self, base: BaseReader, request: pb.BaseDigestsRequest) -> pb.BaseDigestsResponse:
        within = _wanted(request, base.capacity_bytes)
        digests = base.digests(request.region)
        if digests is not None and within is not None:
            digests = digests[within]
        if digests is None or not bool(np.any(digests != _ZERO_DIGEST)):
            return pb.BaseDigestsResponse(region=request.region, all_zero=True)
        return pb.BaseDigestsResponse(region=request.region, digests=digests.tobytes())


_ZERO_DIGEST: Final = np.frombuffer(ZERO_DIGEST, np.uint8)


def _wanted(request: pb.BaseDigestsRequest, capacity_bytes: int) -> npt.NDArray[np.uint32] | None:
    """The clusters asked for, counted from the region's first; None: all. Raises InvalidArgument."""
    region, packed = request.region, request.cluster_numbers
    if region >= region_count(capacity_bytes):
        raise InvalidArgument("region", f"{region} is beyond the disk's end")
    if not packed:
        return None
    if len(packed) % 4:
        raise InvalidArgument("cluster_numbers", "are not whole 32-bit numbers")
    numbers = np.frombuffer(packed, "<u4").astype(np.int64)
    first = region * REGION_CLUSTERS
    end = first + clusters_in_region(region, capacity_bytes)
    if bool(np.any(numbers[1:] <= numbers[:-1])):
        raise InvalidArgument("cluster_numbers", "are not strictly ascending")
    if int(numbers[0]) < first or int(numbers[-1]) >= end:
        raise InvalidArgument(
            "cluster_numbers", f"are not all of region {region}: clusters {first} to {end - 1}"
        )
    return (numbers - first).astype(np.uint32)
