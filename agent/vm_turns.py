"""Who is at work at which VM: its job, or the removal of what earlier jobs left."""

import threading
from collections.abc import Callable


class VmTurns:
    """One at a VM at a time, and `work(vm_moref)` at no more than `at_once` VMs. Thread-safe.

    `work` runs in threads of its own and must not raise.
    """

    def __init__(self, work: Callable[[str], None], at_once: int) -> None:
        self._work = work
        self._at_once = at_once
        self._changed = threading.Condition()  # guards what follows
        self._held: set[str] = set()
        # In the order of asking; both are sets that keep it.
        self._first: dict[str, None] = {}  # a job waits for these
        self._later: dict[str, None] = {}
        self._working = 0
        self._closed = False

    def ask(self, vm_moref: str) -> None:
        """Work at the VM once it is free and its turn has come."""
        with self._changed:
            if vm_moref not in self._first:
                self._later[vm_moref] = None
            self._begin()

    def hold(self, vm_moref: str, timeout_s: float) -> bool:
        """Keep the VM until `release`; False when it did not get free, or work waits first."""
        with self._changed:
            free = self._changed.wait_for(
                lambda: vm_moref not in self._held and vm_moref not in self._first, timeout_s
            )
            if free:
                self._held.add(vm_moref)
            return free

    def hold_before_work(self, vm_moref: str) -> bool:
        """The same at once, and what waits at the VM waits on; False while it is being worked at."""
        with self._changed:
            if vm_moref in self._held:
                return False
            self._held.add(vm_moref)
            if vm_moref in self._first:
                del self._first[vm_moref]
                self._later[vm_moref] = None
            return True

    def release_for_work(self, vm_moref: str) -> None:
        """Let go of the VM, to hold it again when the work at it was done, which comes first."""
        with self._changed:
            self._later.pop(vm_moref, None)
            self._first[vm_moref] = None
            self._let_go(vm_moref)

    def release(self, vm_moref: str) -> None:
        """Let go of the VM."""
        with self._changed:
            self._let_go(vm_moref)

    def close(self, timeout_s: float) -> None:
        """Begin no more work; wait for what is under way."""
        with self._changed:
            self._closed = True
            self._first.clear()
            self._later.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._working, timeout_s)

    def _let_go(self, vm_moref: str) -> None:
        self._held.discard(vm_moref)
        self._begin()
        self._changed.notify_all()

    def _begin(self) -> None:
        """Start what may run now; the lock is held."""
        for waiting in (self._first, self._later):
            for vm_moref in list(waiting):
                if self._closed or self._working >= self._at_once:
                    return
                if vm_moref not in self._held:
                    del waiting[vm_moref]
                    self._held.add(vm_moref)
                    self._working += 1
                    threading.Thread(
                        target=self._run, args=(vm_moref,), name="sweep-vm", daemon=True
                    ).start()

    def _run(self, vm_moref: str) -> None:
        try:
            self._work(vm_moref)
        finally:
            with self._changed:
                self._working -= 1
                self._let_go(vm_moref)
