"""Removal of snapshots that earlier jobs of this agent left behind."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from agent.cancellation import Cancellation
from agent.errors import VmBusy
from agent.vm_turns import VmTurns
from agent.vsphere.errors import LoginFailed, VsphereUnreachable
from agent.vsphere.models import Leftover
from agent.vsphere.site import VsphereSite
from shared.errors import SendenseError

# A job that waits takes the place of another one; merging hours of writes takes hours.
VM_WAIT_S: Final = 300.0
# A snapshot that could not be removed grows until it is: try again, but a
# sweep is a question about every VM.
INTERVAL_S: Final = 900.0
# What failed again and again is hardly mended by trying: a person has to look.
LONGEST_PAUSE_S: Final = 4 * 3600.0
RETRY_S: Final = 60.0
# vSphere locks an account after a few wrong passwords within 15 minutes.
LOGIN_RETRY_S: Final = 1200.0
POLL_S: Final = 1.0
# Each merges disks: many at once take the datastore away from the VMs.
REMOVALS_AT_ONCE: Final = 4

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Owed:
    """A VM at which something of this agent's is left, or may be."""

    failures: int = 0
    next_s: float = 0.0  # monotonic; infinite while it is asked for
    tried_s: float = 0.0


class Sweeper:
    """Sweeps in threads of its own, from the first registration on. Thread-safe.

    A search names the VMs where something is left. What is left over at a VM is
    decided and removed while it is held; a job holds its VM from before its snapshot
    to its end. So neither takes the other's snapshot, nor merges disks under it.
    """

    def __init__(self, site: VsphereSite, alive_job_ids: Callable[[], set[str]]) -> None:
        self._site = site
        self._alive_job_ids = alive_job_ids
        self._turns = VmTurns(self._sweep_vm, REMOVALS_AT_ONCE)
        self._ended = threading.Event()
        self._changed = threading.Condition()  # guards what follows
        self._owner = ""
        self._kept_job_ids: set[str] = set()  # of earlier runs; the hub has not decided on them
        self._due = False
        self._left_by: dict[str, str] = {}  # jobs done with their snapshot, alive or not: their VM
        self._owed: dict[str, _Owed] = {}
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def registered(self, owner: str, kept_job_ids: Iterable[str] = ()) -> None:
        """The hub knows this agent under that id; its snapshots are the ones to sweep.

        Those of `kept_job_ids` are not, until `release` or the next registration.
        """
        with self._changed:
            self._owner = owner
            self._kept_job_ids = set(kept_job_ids)
            self._due = True
            self._changed.notify_all()

    def release(self, job_id: str) -> bool:
        """The hub needs the snapshot of this job no more, or the job itself is at work on it.

        Whether it was kept until now.
        """
        with self._changed:
            if job_id not in self._kept_job_ids:
                return False
            self._kept_job_ids.remove(job_id)
            self._due = True
            self._changed.notify_all()
            return True

    def left_behind(self, job_id: str, vm_moref: str) -> None:
        """A snapshot of this job stays, or its disks are not merged, or both may be so.

        It is tried again as soon as the job lets go of its VM, unless that failed lately.
        """
        with self._changed:
            self._left_by[job_id] = vm_moref
            self._owed.setdefault(vm_moref, _Owed())
            self._changed.notify_all()

    @contextmanager
    def vm_of_job(self, vm_moref: str, cancellation: Cancellation) -> Iterator[None]:
        """Hold the VM for a job, swept where that is needed.

        What cannot be removed, or waits too long for its turn, does not fail the job.
        Raises VmBusy while an older snapshot of the VM is being removed, LoginFailed,
        a cancellation.
        """
        begun = time.monotonic()
        self._hold(vm_moref, cancellation, begun + VM_WAIT_S)
        if self._is_anything_left(vm_moref, begun):
            self._turns.release_for_work(vm_moref)
            self._hold(vm_moref, cancellation, begun + VM_WAIT_S)
        try:
            yield
        finally:
            self._turns.release(vm_moref)

    def close(self, timeout_s: float) -> bool:
        """Begin nothing more and wait for nothing more; what is under way goes on in vSphere.

        Whether nothing is left behind of what `left_behind` told of. May be repeated.
        """
        with self._changed:
            self._ended.set()
            self._changed.notify_all()
        self._turns.close(timeout_s)
        self._thread.join(timeout_s)
        with self._changed:
            return not self._left_by

    def _hold(self, vm_moref: str, cancellation: Cancellation, end_s: float) -> None:
        while not self._turns.hold(vm_moref, POLL_S):
            cancellation.check()
            if time.monotonic() > end_s:
                if self._turns.hold_before_work(vm_moref):
                    return  # its turn did not come
                raise VmBusy(vm_moref, VM_WAIT_S)

    def _is_anything_left(self, vm_moref: str, since_s: float) -> bool:
        """Whether to sweep the VM, which is held, before a job; not if that failed since then."""
        with self._changed:
            owed = self._owed.get(vm_moref)
            if not self._owner or (owed is not None and owed.tried_s >= since_s):
                return False
        try:
            return bool(self._leftovers(vm_moref))
        except BaseException as error:
            if isinstance(error, SendenseError) and not isinstance(error, LoginFailed):
                _log.warning("snapshot_sweep_failed", vm=vm_moref, error=str(error))
                return False
            self._turns.release(vm_moref)
            raise

    def _run(self) -> None:
        search_s = float("inf")
        while True:
            with self._changed:
                if self._ended.is_set():
                    return
                now = time.monotonic()
                first_s = min([search_s, *(one.next_s for one in self._owed.values())])
                if not self._owner or (not self._due and first_s > now):
                    self._changed.wait(min(first_s - now, INTERVAL_S) if self._owner else None)
                    continue
                search = self._due or search_s <= now
                self._due = False
                again = [moref for moref, one in self._owed.items() if one.next_s <= now]
                for vm_moref in again:
                    self._owed[vm_moref].next_s = float("inf")
            for vm_moref in again:
                self._turns.ask(vm_moref)
            if search:
                search_s = time.monotonic() + self._search()

    def _search(self) -> float:
        """Ask for the VMs where something is left; seconds until the next search."""
        try:
            found = {one.vm_moref for one in self._leftovers()}
        except LoginFailed as error:
            _log.error("snapshot_sweep_failed", error=str(error))
            return LOGIN_RETRY_S
        except SendenseError as error:
            _log.warning("snapshot_sweep_failed", error=str(error))
            return RETRY_S
        except Exception:  # noqa: BLE001 - the next round may succeed
            _log.exception("snapshot_sweep_failed_unexpectedly")
            return INTERVAL_S
        with self._changed:
            found -= self._owed.keys()  # each of these has a time of its own
            self._owed.update((vm_moref, _Owed(next_s=float("inf"))) for vm_moref in found)
        for vm_moref in sorted(found):
            self._turns.ask(vm_moref)
        return INTERVAL_S

    def _leftovers(self, vm_moref: str = "") -> list[Leftover]:
        """Of one VM or of all. Raises VsphereErrors."""
        return self._site.find_leftovers(self._busy_job_ids, self._owner, vm_moref)

    def _busy_job_ids(self) -> set[str]:
        """Jobs that need their snapshot, or will."""
        with self._changed:
            kept = set(self._kept_job_ids)
        # In this order: a job that is resumed becomes alive before it is released.
        alive = self._alive_job_ids()
        with self._changed:
            return kept | (alive - self._left_by.keys())

    def _sweep_vm(self, vm_moref: str) -> None:
        """Remove what is left at a VM that is held for it; merging may take hours."""
        answered = True
        try:
            clean = self._clean(vm_moref)
        except Exception as error:  # noqa: BLE001 - logged, and tried again
            clean, answered = False, not isinstance(error, LoginFailed | VsphereUnreachable)
            self._tell_failure("snapshot_sweep_failed", vm_moref, error)
        with self._changed:
            if clean:
                self._owed.pop(vm_moref, None)
                self._left_by = {
                    job_id: moref for job_id, moref in self._left_by.items() if moref != vm_moref
                }
            else:
                owed = self._owed.setdefault(vm_moref, _Owed())
                owed.failures += answered
                owed.tried_s = time.monotonic()
                doublings = min(max(owed.failures - 1, 0), 10)
                owed.next_s = owed.tried_s + min(INTERVAL_S * 2**doublings, LONGEST_PAUSE_S)
            self._changed.notify_all()

    def _clean(self, vm_moref: str) -> bool:
        """Whether nothing is left at the VM now. Raises VsphereErrors."""
        leftovers = self._leftovers(vm_moref)
        clean = True
        for leftover in leftovers:
            try:
                self._site.remove_leftover(leftover, self._ended)
                _log.warning("leftover_snapshot_removed", snapshot=leftover.name, vm=vm_moref)
            except SendenseError as error:
                clean = False
                self._tell_failure("snapshot_left_behind", vm_moref, error, snapshot=leftover.name)
        with self._changed:
            owed = vm_moref in self._owed
        if not leftovers and owed:
            # A removal of this agent's failed, and the snapshot is gone: its disks may not be merged.
            problem = self._site.merge_disks(vm_moref, self._ended)
            if problem:
                _log.error("disks_not_consolidated", vm=vm_moref, error=problem)
                return False
        return clean

    def _tell_failure(self, event: str, vm_moref: str, error: Exception, **facts: str) -> None:
        if self._ended.is_set():
            _log.info("snapshot_sweep_ended", vm=vm_moref, **facts)
            return
        unforeseen = not isinstance(error, SendenseError)
        _log.error(event, vm=vm_moref, error=str(error), exc_info=unforeseen, **facts)
