"""How often and how many at once: what cannot be removed must not become a storm."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import sweeper
from agent.cancellation import Cancellation
from agent.errors import VmBusy
from agent.sweeper import Sweeper
from agent.vsphere.errors import PermissionMissing, VsphereUnreachable
from agent.vsphere.models import Leftover

pytestmark = pytest.mark.hostile

DEADLINE_S = 30.0
OWNER = "agent-1"


class Site:
    """A vSphere with leftovers that stay for as long as `stuck` says so."""

    def __init__(self, *vms: str) -> None:
        self.changed = threading.Condition()
        self.left = set(vms)
        self.stuck = set(vms)
        self.unmerged: set[str] = set()
        self.unreachable_at: set[str] = set()
        self.held: set[str] = set()  # removals there do not end
        self.searches = 0
        self.looks: Counter[str] = Counter()
        self.removals: Counter[str] = Counter()
        self.merges: Counter[str] = Counter()
        self.now = self.peak = 0

    def find_leftovers(
        self, alive_job_ids: Callable[[], set[str]], owner: str, vm_moref: str = ""
    ) -> list[Leftover]:
        assert owner == OWNER
        with self.changed:
            if vm_moref:
                self.looks[vm_moref] += 1
            else:
                self.searches += 1
            self.changed.notify_all()
            if vm_moref in self.unreachable_at:
                raise VsphereUnreachable("vc", "no answer")
            alive = {f"sendense-{job_id}" for job_id in alive_job_ids()}
            found = {vm_moref} & self.left if vm_moref else self.left
            all_found = [Leftover(vm, f"snapshot-{vm}", f"sendense-{vm}") for vm in sorted(found)]
            return [one for one in all_found if one.name not in alive]

    def remove_leftover(self, leftover: Leftover, ended: threading.Event) -> None:
        vm = leftover.vm_moref
        with self.changed:
            self.removals[vm] += 1
            self.now += 1
            self.peak = max(self.peak, self.now)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: vm not in self.held, DEADLINE_S)
            self.now -= 1
            if vm in self.stuck:
                raise PermissionMissing("backup", "remove a snapshot", "RemoveSnapshot")
            self.left.discard(vm)
            self.changed.notify_all()

    def merge_disks(self, vm_moref: str, ended: threading.Event) -> str:
        with self.changed:
            self.merges[vm_moref] += 1
            self.changed.notify_all()
            return "a file is locked" if vm_moref in self.unmerged else ""

    def wait(self, true: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, DEADLINE_S), (self.searches, self.removals)

    def let_go(self) -> None:
        with self.changed:
            self.held.clear()
            self.changed.notify_all()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(sweeper, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(site: Site, ends: ExitStack, alive: Callable[[], set[str]] = set) -> Sweeper:
    made = Sweeper(cast(Any, site), alive)
    ends.callback(made.close, DEADLINE_S)
    ends.callback(site.let_go)
    return made


def searched(site: Site, made: Sweeper) -> None:
    """Have a search made; returns when all it found, and what was due, was looked at.

    Of `REMOVALS_AT_ONCE` = 1: the VM that it finds last is swept last.
    """
    marker = f"zz-{site.searches}"
    with site.changed:
        site.left.add(marker)
    made.registered(OWNER)
    site.wait(lambda: marker not in site.left)


def test_few_are_removed_at_a_time_and_a_job_s_start_asks_for_no_others(ends: ExitStack) -> None:
    vms = [f"vm-{number:03}" for number in range(150)]
    site = Site(*vms)
    site.held = set(vms)
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.now == 4)
    for number in range(10):
        with made.vm_of_job(f"other-{number}", Cancellation()):
            pass
    assert site.searches == 1
    assert site.now == 4
    site.let_go()
    site.wait(lambda: site.removals.total() == 150)
    assert site.peak == 4
    assert set(site.removals.values()) == {1}
    assert site.searches == 1


def test_job_removes_what_is_left_at_its_own_vm_first(ends: ExitStack) -> None:
    site = Site("a", "b")
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals.total() == 2)
    with made.vm_of_job("b", Cancellation()):  # begins after the sweep's removal ended, or not
        tries = site.removals["b"]
    site.stuck.clear()
    with made.vm_of_job("b", Cancellation()):
        assert site.left == {"a"}
    assert site.removals == {"a": 1, "b": tries + 1}
    assert site.searches == 1


def test_pauses_grow_while_a_removal_fails_whatever_else_calls_for_a_search(
    ends: ExitStack, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "REMOVALS_AT_ONCE", 1)
    site = Site("a")
    made = started(site, ends)
    searched(site, made)
    tries = 1
    for pause_s in (900, 1800, 3600, 7200, 14400, 14400):
        assert site.removals["a"] == tries
        clock.now += pause_s - 1
        searched(site, made)
        made.left_behind("job-1", "a")  # by the next job there: not sooner, either
        searched(site, made)
        assert site.removals["a"] == tries
        clock.now += 1
        searched(site, made)
        tries += 1
    site.stuck.clear()
    clock.now += 14400
    searched(site, made)
    assert site.left == set()
    site.left, site.stuck = {"a"}, {"a"}
    searched(site, made)  # a new leftover is no old failure
    assert site.removals["a"] == tries + 2
    clock.now += 900
    searched(site, made)
    assert site.removals["a"] == tries + 3


def test_searches_meanwhile_ask_for_no_second_removal(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "REMOVALS_AT_ONCE", 1)
    site = Site("a")
    site.held = {"a"}
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    for searches in range(2, 5):
        made.registered(OWNER)
        site.wait(lambda searches=searches: site.searches == searches)
    site.let_go()
    searched(site, made)
    assert site.removals["a"] == 1


def test_pauses_do_not_grow_while_vsphere_does_not_answer(
    ends: ExitStack, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "REMOVALS_AT_ONCE", 1)
    site = Site("a")
    site.unreachable_at = {"a"}
    made = started(site, ends)
    for tries in range(1, 5):
        searched(site, made)
        assert site.looks["a"] == tries
        clock.now += 900
    assert site.removals["a"] == 0
    site.stuck.clear()
    site.unreachable_at.clear()
    searched(site, made)
    assert site.left == set()


def test_disks_that_a_removal_left_unmerged_are_merged_by_the_sweeps(
    ends: ExitStack, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "REMOVALS_AT_ONCE", 1)
    site = Site()
    site.unmerged = {"a"}
    made = started(site, ends)
    with made.vm_of_job("a", Cancellation()):
        made.left_behind("job-1", "a")
        searched(site, made)
        assert site.merges["a"] == 0  # the job has its VM
    site.wait(lambda: site.merges["a"] == 1)
    searched(site, made)
    clock.now += 899
    searched(site, made)
    assert site.merges["a"] == 1
    site.unmerged.clear()
    clock.now += 1
    searched(site, made)
    assert site.merges == {"a": 2}
    clock.now += 90000
    searched(site, made)
    assert site.merges == {"a": 2}  # whatever else leaves disks unmerged there is not ours
    assert made.close(DEADLINE_S)


def test_job_goes_on_when_the_removal_s_turn_does_not_come(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "REMOVALS_AT_ONCE", 1)
    monkeypatch.setattr(sweeper, "VM_WAIT_S", 0.05)
    monkeypatch.setattr(sweeper, "POLL_S", 0.05)
    site = Site("a", "b")
    site.held = {"a"}
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    with made.vm_of_job("b", Cancellation()):
        assert site.removals["b"] == 0
        site.stuck.clear()
        site.let_go()
        with made.vm_of_job("a", Cancellation()):
            assert site.left == {"b"}
    site.wait(lambda: not site.left)  # once the job has let go of its VM


def test_job_of_a_vm_that_is_swept_waits_and_then_says_so(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "VM_WAIT_S", 0.05)
    monkeypatch.setattr(sweeper, "POLL_S", 0.05)
    site = Site("a")
    site.held = {"a"}
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    with pytest.raises(VmBusy), made.vm_of_job("a", Cancellation()):
        pass


def test_removal_that_failed_while_the_job_waited_for_it_is_not_repeated_for_it(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site("a")
    site.held = {"a"}
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    check = Cancellation.check

    def let_go_then_check(cancellation: Cancellation) -> None:
        site.let_go()  # the job has begun to wait
        check(cancellation)

    monkeypatch.setattr(sweeper, "POLL_S", 0.05)
    monkeypatch.setattr(Cancellation, "check", let_go_then_check)
    with made.vm_of_job("a", Cancellation()):
        assert site.removals["a"] == 1


def test_search_that_fails_at_a_job_s_start_does_not_fail_the_job(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.searches == 1)

    def fail(*_given: Any) -> list[Leftover]:
        raise VsphereUnreachable("vc", "no answer")

    monkeypatch.setattr(site, "find_leftovers", fail)
    with made.vm_of_job("a", Cancellation()):
        pass


def test_unforeseen_error_at_a_job_s_start_lets_go_of_the_vm(
    ends: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.searches == 1)
    real = site.find_leftovers

    def fail(*_given: Any) -> list[Leftover]:
        raise KeyError("a defect")

    monkeypatch.setattr(site, "find_leftovers", fail)
    with pytest.raises(KeyError), made.vm_of_job("a", Cancellation()):
        pass
    monkeypatch.setattr(site, "find_leftovers", real)
    with made.vm_of_job("a", Cancellation()):
        pass


def test_jobs_that_are_alive_keep_their_snapshots_wherever_they_are_listed(
    ends: ExitStack,
) -> None:
    site = Site("a", "b")  # of job "a" and job "b"
    site.stuck.clear()
    made = started(site, ends, alive=lambda: {"a"})
    made.registered(OWNER)
    site.wait(lambda: site.left == {"a"})
    with made.vm_of_job("a", Cancellation()):
        made.left_behind("a", "a")
    site.wait(lambda: not site.left)  # done with it, alive or not
    assert made.close(DEADLINE_S)


def test_what_is_still_left_at_the_end_is_told(ends: ExitStack) -> None:
    site = Site("a")
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    made.left_behind("a", "a")
    assert not made.close(DEADLINE_S)


def test_leftover_of_an_earlier_run_is_no_failure_of_this_one(ends: ExitStack) -> None:
    site = Site("a")
    made = started(site, ends)
    made.registered(OWNER)
    site.wait(lambda: site.removals["a"] == 1)
    assert made.close(DEADLINE_S)
