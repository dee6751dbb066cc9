"""The host's budget: who gets how much, who waits, who is next."""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cancellation import Cancellation
from agent.transports.disk_reader import LARGEST_READ_BYTES
from agent.transports.nfc.budget import Lease, NfcBudget, _Host
from agent.transports.nfc.reader import REQUESTS_OUTSTANDING

pytestmark = pytest.mark.hostile

DEADLINE_S = 10.0


class Watched(NfcBudget):
    """Counts who began to wait."""

    def __init__(self, connections_per_host: int, buffers_mib_per_host: int) -> None:
        super().__init__(connections_per_host, buffers_mib_per_host)
        self.waits = threading.Semaphore(0)

    def _wait_for_change(self, state: _Host, turn: object, cancellation: Cancellation) -> None:
        self.waits.release()  # the lock is held: whoever sees this finds the waiter queued
        super()._wait_for_change(state, turn, cancellation)


def leased_elsewhere(
    budget: Watched, pool: ThreadPoolExecutor, host: str = "esxi-1", *, ahead: bool = False
) -> Future[Lease]:
    """A lease asked for by another thread, which waits when this returns."""
    lease = pool.submit(budget.lease, host, Cancellation(), ahead=ahead)
    assert budget.waits.acquire(timeout=DEADLINE_S)
    return lease


@given(connections=st.integers(1, 52), buffers_mib=st.integers(2, 48))
def test_every_connection_finds_a_buffer_and_none_takes_more_than_it_uses(
    connections: int, buffers_mib: int
) -> None:
    budget = NfcBudget(connections, buffers_mib)
    most = min(connections, (buffers_mib << 20) // LARGEST_READ_BYTES)
    leases = [budget.lease("esxi-1", Cancellation()) for _ in range(most)]
    assert all(1 <= lease.requests <= REQUESTS_OUTSTANDING for lease in leases)
    assert sum(lease.requests for lease in leases) * LARGEST_READ_BYTES <= buffers_mib << 20
    late = Cancellation()
    late.cancel(TimeoutError("there is no other"))
    with pytest.raises(TimeoutError):
        budget.lease("esxi-1", late)


def test_default_budget_gives_the_first_disks_all_they_use() -> None:
    budget = NfcBudget(8, 32)
    taken = [budget.lease("esxi-1", Cancellation()).requests for _ in range(8)]
    assert taken == [4, 4, 3, 1, 1, 1, 1, 1]


def test_hosts_have_budgets_of_their_own() -> None:
    budget = NfcBudget(1, 8)
    assert budget.lease("esxi-1", Cancellation()).requests == 4
    assert budget.lease("esxi-2", Cancellation()).requests == 4


def test_whoever_asked_first_is_served_first_but_a_disk_half_read_before_all() -> None:
    budget = Watched(1, 32)
    held = budget.lease("esxi-1", Cancellation())
    with ThreadPoolExecutor(4) as pool:
        waiting = deque(leased_elsewhere(budget, pool) for _ in range(3))
        waiting.appendleft(leased_elsewhere(budget, pool, ahead=True))
        while waiting:
            assert not any(lease.done() for lease in waiting)
            held.release()
            held = waiting.popleft().result(DEADLINE_S)


def test_lease_given_back_twice_counts_once() -> None:
    budget = Watched(2, 32)
    first, _second = (budget.lease("esxi-1", Cancellation()) for _ in range(2))
    first.release()
    first.release()
    again = budget.lease("esxi-1", Cancellation())
    with ThreadPoolExecutor(1) as pool:
        waiting = leased_elsewhere(budget, pool)
        assert not waiting.done()
        again.release()
        waiting.result(DEADLINE_S)


def test_cancelled_wait_ends_with_the_jobs_error_and_lets_the_next_one_in() -> None:
    budget = Watched(1, 32)
    held = budget.lease("esxi-1", Cancellation())
    job = Cancellation()
    with ThreadPoolExecutor(2) as pool:
        cancelled = pool.submit(budget.lease, "esxi-1", job)
        assert budget.waits.acquire(timeout=DEADLINE_S)
        waiting = leased_elsewhere(budget, pool)
        job.cancel(InterruptedError("the job ends"))
        with pytest.raises(InterruptedError, match="the job ends"):
            cancelled.result(DEADLINE_S)
        held.release()
        waiting.result(DEADLINE_S).release()
    assert budget._hosts == {}


@pytest.mark.parametrize(("connections", "buffers_mib"), [(0, 32), (8, 1)])
def test_budget_that_lets_nothing_through_is_refused(connections: int, buffers_mib: int) -> None:
    with pytest.raises(ValueError, match="without"):
        NfcBudget(connections, buffers_mib)
