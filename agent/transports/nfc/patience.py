"""How long a disk whose connections fail is tried again."""

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, wait_random_exponential

from agent.transports.errors import NfcOpenRefused


@dataclass(frozen=True, slots=True)
class ReconnectPatience:
    """How long the same bytes are asked for in vain. The first extent starts it anew."""

    attempts: int = 10
    total_s: float = 180.0
    """From the first failure, without the wait for another host's budget; an attempt
    under way then is not cut short."""
    first_wait_s: float = 0.25
    longest_wait_s: float = 30.0
    """Waits are random, up to a bound that doubles from the first to the longest."""
    first_opens: int = 3
    """So often a file that was never open is asked for while the host refuses to open it."""
    open_wait_s: float = 1.0
    """More wait after each such refusal: who holds a file for a moment holds it for seconds."""

    def wait_s(self, state: RetryCallState) -> float:
        """How long to wait after a failed attempt, as tenacity's `wait`."""
        backoff = wait_random_exponential(multiplier=self.first_wait_s, max=self.longest_wait_s)
        error = state.outcome.exception() if state.outcome else None
        return backoff(state) + (self.open_wait_s if isinstance(error, NfcOpenRefused) else 0.0)


class SinceFirstFailure:
    """Ends the attempts of one operation, as tenacity's `stop`; made anew for each."""

    def __init__(self, patience: ReconnectPatience, clock_s: Callable[[], float]) -> None:
        self._patience = patience
        self._clock_s = clock_s
        self._first_s: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        if self._first_s is None:
            self._first_s = self._clock_s()
        return (
            state.attempt_number >= self._patience.attempts
            or self._clock_s() - self._first_s >= self._patience.total_s
        )
