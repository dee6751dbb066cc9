"""Removal of snapshots that earlier jobs of this agent left behind."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from agent.cancellation import Cancellation
from agent.errors import SiteBusy, VmBusy
from agent.vsphere.errors import LoginFailed
from agent.vsphere.models import Leftover
from agent.vsphere.site import VsphereSite
from shared.errors import SendenseError

SEARCH_WAIT_S: Final = 300.0
# A job that waits takes the place of another one; merging hours of writes takes hours.
VM_WAIT_S: Final = 300.0
# A snapshot that could not be removed grows until it is: try again, but a
# sweep is a question about every VM.
INTERVAL_S: Final = 900.0
RETRY_S: Final = 60.0
# vSphere locks an account after a few wrong passwords within 15 minutes.
LOGIN_RETRY_S: Final = 1200.0
POLL_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps in threads of its own, from the first registration on. Thread-safe.

    What is left over is decided under one lock, with `alive_job_ids` asked
    there; every job passes it between becoming alive and taking its snapshot.
    So a sweep never takes the snapshot of a job that it does not know to be
    alive. A removal then holds its VM alone, and a job holds its VM from before
    its snapshot to its end: neither merges disks under the other.
    """

    def __init__(self, site: VsphereSite, alive_job_ids: Callable[[], set[str]]) -> None:
        self._site = site
        self._alive_job_ids = alive_job_ids
        self._deciding = threading.Lock()
        self._changed = threading.Condition()  # guards what follows
        self._owner = ""
        # Whatever ran before this process may have left something.
        self._needed = self._due = True
        self._left_by: set[str] = set()  # jobs that are done with their snapshot, alive or not
        self._held_vms: set[str] = set()
        self._skipped_vms: set[str] = set()  # held when a sweep found leftovers there
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def registered(self, owner: str) -> None:
        """The hub knows this agent under that id; its snapshots are the ones to sweep."""
        with self._changed:
            self._owner = owner
            self._needed = self._due = True
            self._changed.notify_all()

    def left_behind(self, job_id: str) -> None:
        """A snapshot of this job stays, or may; the next sweep is to remove it."""
        with self._changed:
            self._left_by.add(job_id)
            self._needed = self._due = True
            self._changed.notify_all()

    @contextmanager
    def vm_of_job(self, vm_moref: str, cancellation: Cancellation) -> Iterator[None]:
        """Hold the VM for a job, swept where that is needed.

        A search that fails does not fail the job. Raises VmBusy while an older
        snapshot of the VM is being removed, SiteBusy, LoginFailed, a cancellation.
        """
        with self._decision(cancellation):
            if self._needed:
                self._start_removals()
        end = time.monotonic() + VM_WAIT_S
        while not self._hold(vm_moref, POLL_S):
            cancellation.check()
            if time.monotonic() > end:
                raise VmBusy(vm_moref, VM_WAIT_S)
        try:
            yield
        finally:
            self._release(vm_moref)

    def close(self, timeout_s: float) -> None:
        """Begin nothing more; a removal that is under way goes on in vSphere."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held_vms, timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = INTERVAL_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._due and self._owner), pause_s)
                if self._closed:
                    return
                self._due = False
            pause_s = INTERVAL_S
            try:
                with self._decision(Cancellation()):
                    found = self._start_removals()
            except LoginFailed as error:
                _log.error("snapshot_sweep_failed", error=str(error))
                with self._changed:  # not even a registration shortens this
                    self._changed.wait_for(lambda: self._closed, LOGIN_RETRY_S)
            except Exception:  # noqa: BLE001 - the next round may succeed
                _log.exception("snapshot_sweep_failed_unexpectedly")
            else:
                pause_s = INTERVAL_S if found else RETRY_S

    @contextmanager
    def _decision(self, cancellation: Cancellation) -> Iterator[None]:
        end = time.monotonic() + SEARCH_WAIT_S
        while not self._deciding.acquire(timeout=POLL_S):
            cancellation.check()
            if time.monotonic() > end:
                raise SiteBusy(SEARCH_WAIT_S)
        try:
            yield
        finally:
            self._deciding.release()

    def _start_removals(self) -> bool:
        """Find what is left over and begin to remove it; `_deciding` is held.

        False when the search failed. Raises LoginFailed.
        """
        alive = self._alive_job_ids()
        with self._changed:
            if not self._owner:
                return True  # what is ours is not known yet
            owner, self._needed = self._owner, False
            self._left_by &= alive  # the others are leftovers as a matter of course
            alive -= self._left_by
        try:
            leftovers = self._site.find_leftovers(alive, owner)
        except SendenseError as error:
            self._still_needed()
            if isinstance(error, LoginFailed):
                raise  # going on would only try the password again
            _log.warning("snapshot_sweep_failed", error=str(error))
            return False
        of_vms: dict[str, list[Leftover]] = {}
        for leftover in leftovers:
            of_vms.setdefault(leftover.vm_moref, []).append(leftover)
        for vm_moref, of_vm in of_vms.items():
            if self._hold(vm_moref, 0):
                threading.Thread(
                    target=self._remove, args=(vm_moref, of_vm), name="sweep-vm", daemon=True
                ).start()
            else:
                self._skip(vm_moref)
        return True

    def _remove(self, vm_moref: str, leftovers: list[Leftover]) -> None:
        """In a thread of its own: merging what was written since may take hours."""
        try:
            for leftover in leftovers:
                try:
                    self._site.remove_leftover(leftover)
                    _log.warning("leftover_snapshot_removed", snapshot=leftover.name, vm=vm_moref)
                except Exception as error:  # noqa: BLE001 - logged, and tried again
                    self._still_needed()
                    _log.error(
                        "snapshot_left_behind",
                        snapshot=leftover.name,
                        vm=vm_moref,
                        error=str(error),
                        exc_info=not isinstance(error, SendenseError),
                    )
        finally:
            self._release(vm_moref)

    def _skip(self, vm_moref: str) -> None:
        """A job or another removal is at work at the VM; its end calls for the next sweep."""
        with self._changed:
            self._needed = True
            if vm_moref in self._held_vms:
                self._skipped_vms.add(vm_moref)
            else:
                self._due = True
                self._changed.notify_all()

    def _still_needed(self) -> None:
        with self._changed:
            self._needed = True

    def _hold(self, vm_moref: str, timeout_s: float) -> bool:
        with self._changed:
            free = self._changed.wait_for(lambda: vm_moref not in self._held_vms, timeout_s)
            if free:
                self._held_vms.add(vm_moref)
            return free

    def _release(self, vm_moref: str) -> None:
        with self._changed:
            self._held_vms.discard(vm_moref)
            if vm_moref in self._skipped_vms:
                self._skipped_vms.discard(vm_moref)
                self._due = True
            self._changed.notify_all()
