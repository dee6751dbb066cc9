"""What a disk needs of the hub, tried again for as long as the job waits for the hub."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, wait_random

from agent.cancellation import Cancellation
from agent.errors import DiskGivenUp, HubUnreachable
from agent.hub_errors import hub_reason, passes
from agent.hub_presence import HubPresence

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
DOUBLINGS: Final = 10
LOOK_S: Final = 10.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class HubRetries:
    """Attempts for one disk. `run` is used by one thread; any may say what it did.

    Pauses are random, up to a bound that doubles from the first to the longest; they end
    when the hub comes back. The first failure after progress starts the count, and the
    time, anew: an upload that had nothing to send for an hour has all its time left.
    """

    def __init__(
        self,
        disk: str,
        presence: HubPresence,
        hub_s: float,
        cancellation: Cancellation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._presence = presence
        self._hub_s = hub_s
        self._cancellation = cancellation
        self._clock = clock
        self._lock = threading.Lock()  # guards the next three
        self._has_progressed = False
        self._was_served = False
        self._progress_at = datetime.now(UTC)
        self._failures = 0
        self._failing_since = 0.0
        self._told: str | None = None

    @property
    def failed(self) -> bool:
        """Whether an attempt failed already."""
        return self._failures > 0

    def progressed(self) -> None:
        """More of the disk is done than ever before, and stays so whatever breaks."""
        with self._lock:
            self._has_progressed = True
            self._progress_at = datetime.now(UTC)

    def served(self) -> None:
        """The hub took an upload: what breaks next is another break."""
        with self._lock:
            self._was_served = True

    def run(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns in the end.

        Raises its errors that do not pass, DiskGivenUp, and the cancellation's error.
        """
        attempts = Retrying(
            retry=retry_if_exception(passes),
            after=self._failed,
            wait=self._wait_s,
            stop=self._is_over,
            before_sleep=self._tell,
            sleep=self._pause,
        )
        try:
            return attempts(attempt)
        except RetryError as over:
            self._cancellation.check()
            error = over.last_attempt.exception()
            assert error is not None
            raise self._given_up(error) from error

    def _failed(self, state: RetryCallState) -> None:
        with self._lock:
            if self._has_progressed:
                self._has_progressed = False
                self._failures = 0
            if self._was_served:
                self._was_served = False
                self._told = None
        if not self._failures:
            self._failing_since = self._clock()
        self._failures += 1

    def _left_s(self) -> float:
        return self._failing_since + self._hub_s - self._clock()

    def _is_over(self, state: RetryCallState) -> bool:
        return self._left_s() <= 0

    def _wait_s(self, state: RetryCallState) -> float:
        bound_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, DOUBLINGS))
        pause_s = wait_random(0, bound_s)(state)
        return max(0.0, min(pause_s, self._left_s()))

    def _pause(self, seconds: float) -> None:
        self._presence.pause(seconds, self._cancellation)

    def _tell(self, state: RetryCallState) -> None:
        """Log a break, and what keeps the hub away, once."""
        error = state.outcome.exception() if state.outcome else None
        assert error is not None
        reason = hub_reason(error)
        if reason == self._told:
            return
        self._told = reason
        _log.warning(
            "disk_upload_broke",
            disk=self._disk,
            reason=reason,
            error=str(error),
            next_try_in_s=round(state.upcoming_sleep, 1),
        )

    def _given_up(self, error: BaseException) -> DiskGivenUp:
        with self._lock:
            since = self._progress_at.strftime("%Y-%m-%d %H:%M:%S UTC")
        return DiskGivenUp(hub_reason(error), self._disk, str(error), since, self._hub_s)


def require_hub(channel: grpc.Channel, cancellation: Cancellation) -> None:
    """Look whether a hub serves there. Raises HubUnreachable and the cancellation's error."""
    call = health_pb2_grpc.HealthStub(channel).Check.future(
        health_pb2.HealthCheckRequest(), timeout=LOOK_S
    )
    try:
        with cancellation.calling(lambda _: call.cancel()):
            answer = call.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        cancellation.check()
        raise HubUnreachable(call.details() or "no answer") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise HubUnreachable(f"it says {status}")
