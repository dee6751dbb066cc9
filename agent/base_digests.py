"""What the base of a disk holds, as the hub tells it: digests of clusters, asked for ahead."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Final

import grpc
import numpy as np
import structlog

from agent.areas import Area, total_bytes
from agent.bounded_queue import BoundedQueue, QueueClosed, QueueEnded
from agent.cancellation import Cancellation
from agent.errors import BaseDigestsOverdue, BaseUnusable, HubMisbehaved, HubRefused
from agent.hub_errors import hub_error
from agent.patience import Patience
from sendense.clusters import CLUSTER_BYTES, DIGEST_BYTES, REGION_BYTES, ZERO_DIGEST, cluster_count
from sendense.v1 import upload_pb2 as pb
from sendense.v1.upload_pb2_grpc import UploadServiceStub

# Regions asked for and not answered yet: 2 GiB of disk, 512 KiB of digests at most.
REGIONS_AHEAD: Final = 4
JOIN_S: Final = 30.0
LOOK_S: Final = 1.0

_log = structlog.get_logger(__name__)


class BaseDigests:
    """The hub's BaseDigests for one disk of a job.

    Threads: one thread asks, one question after the other; `close` may be called from
    any, and more than once: it ends a question, whose caller gets QueueClosed.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        job_id: str,
        disk_index: int,
        capacity_bytes: int,
        cancellation: Cancellation | None = None,
        answer_s: float = Patience.answer_s,
    ) -> None:
        self._stub = UploadServiceStub(channel)
        self._job_id = job_id
        self._disk_index = disk_index
        self._capacity_bytes = capacity_bytes
        self._cancellation = cancellation or Cancellation()
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self._closed = False
        self._answers: BoundedQueue[pb.BaseDigestsResponse | Exception] | None = None

    def ask(self, regions: Iterable[list[Area]]) -> Generator[tuple[list[Area], bytes], None, None]:
        """For each list of areas, which lie in one region: the list, and its clusters' digests.

        The areas begin on cluster boundaries, ascend and are disjoint; there are 16
        bytes for each of their clusters, those of zeros for what the base never had.
        `regions` is consumed ahead. Whoever leaves the generator early closes it.

        Raises BaseUnusable when the hub has no base for the disk or finds it damaged,
        BaseDigestsOverdue, HubRefused, HubUnreachable, HubMisbehaved, the
        cancellation's error, QueueClosed.
        """
        requests = BoundedQueue[pb.BaseDigestsRequest](REGIONS_AHEAD)
        answers = self._open_answers()
        call = self._stub.BaseDigests(_given_to(requests))
        taking = threading.Thread(
            target=_take,
            args=(call, answers),
            name=f"base-digests-{self._disk_index}",
            daemon=True,
        )
        asked: deque[list[Area]] = deque()
        taking.start()
        try:
            with self._cancellation.calling(lambda _: answers.close()):
                for number, areas in enumerate(regions):
                    requests.put(self._request(areas, first=number == 0))
                    asked.append(areas)
                    if len(asked) == REGIONS_AHEAD:
                        yield self._answer(asked.popleft(), answers)
                requests.end()
                while asked:
                    yield self._answer(asked.popleft(), answers)
        finally:
            requests.close()
            answers.close()
            call.cancel()
            taking.join(JOIN_S)
            if taking.is_alive():
                _log.error("base_digests_thread_does_not_end", disk_index=self._disk_index)

    def close(self) -> None:
        """End the question that is being asked, and refuse others. Raises nothing."""
        with self._lock:
            self._closed = True
            if self._answers is not None:
                self._answers.close()

    def _open_answers(self) -> BoundedQueue[pb.BaseDigestsResponse | Exception]:
        with self._lock:
            if self._closed:
                raise QueueClosed
            self._answers = BoundedQueue(REGIONS_AHEAD + 1)
            return self._answers

    def _request(self, areas: list[Area], *, first: bool) -> pb.BaseDigestsRequest:
        region = areas[0].start // REGION_BYTES
        whole = Area(
            region * REGION_BYTES,
            min(REGION_BYTES, self._capacity_bytes - region * REGION_BYTES),
        )
        return pb.BaseDigestsRequest(
            job_id=self._job_id if first else "",
            disk_index=self._disk_index if first else 0,
            region=region,
            cluster_numbers=b"" if areas == [whole] else _cluster_numbers(areas),
        )

    def _answer(
        self, areas: list[Area], answers: BoundedQueue[pb.BaseDigestsResponse | Exception]
    ) -> tuple[list[Area], bytes]:
        try:
            answer = answers.get(self._answer_s)
        except QueueEnded:
            raise HubMisbehaved("it ended a stream of base digests before answering") from None
        except QueueClosed:
            self._cancellation.check()
            raise
        if answer is None:
            raise BaseDigestsOverdue(self._disk_index, self._answer_s)
        if isinstance(answer, Exception):
            self._cancellation.check()
            raise answer
        clusters = cluster_count(total_bytes(areas))
        digests = ZERO_DIGEST * clusters if answer.all_zero else answer.digests
        region = areas[0].start // REGION_BYTES
        if answer.region != region or len(digests) != clusters * DIGEST_BYTES:
            raise HubMisbehaved(
                f"asked for {clusters} digests of region {region}, "
                f"it gave {len(digests)} bytes of region {answer.region}"
            )
        return areas, digests


def _cluster_numbers(areas: list[Area]) -> bytes:
    return np.concatenate(
        [
            np.arange(a.start // CLUSTER_BYTES, -(-a.end // CLUSTER_BYTES), dtype="<u4")
            for a in areas
        ]
    ).tobytes()


def _given_to(requests: BoundedQueue[pb.BaseDigestsRequest]) -> Iterator[pb.BaseDigestsRequest]:
    """In gRPC's sending thread: what was asked, until nothing more is."""
    while True:
        try:
            request = requests.get(LOOK_S)
        except (QueueClosed, QueueEnded):
            return
        if request is not None:
            yield request


def _take(
    call: Iterator[pb.BaseDigestsResponse],
    answers: BoundedQueue[pb.BaseDigestsResponse | Exception],
) -> None:
    """In a thread of its own, as a stream has no deadline for one answer."""
    try:
        for answer in call:
            answers.put(answer)
        answers.end()
    except QueueClosed:
        pass  # nobody asks any more
    except grpc.RpcError as error:
        _tell(answers, _refusal(error))
    except Exception as error:  # noqa: BLE001 - the asking thread raises it
        _tell(answers, error)


def _tell(answers: BoundedQueue[pb.BaseDigestsResponse | Exception], error: Exception) -> None:
    with suppress(QueueClosed):  # nobody asks any more
        answers.put(error)


def _refusal(error: grpc.RpcError) -> Exception:
    told = hub_error(error)
    if isinstance(told, HubRefused) and (
        told.reason == "DISK_HAS_NO_BASE" or error.code() is grpc.StatusCode.DATA_LOSS
    ):
        return BaseUnusable(told.reason, told.message)
    return told
