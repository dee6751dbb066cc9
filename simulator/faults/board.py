"""The board: which faults are set on a site, and the questions its parts ask of it.

Orders come from any thread (tests, the control socket); the site's own threads ask with
`look` and `fire`. One condition guards everything and wakes whoever waits for a change.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, TypeVar

from simulator.faults.api_kinds import AnswerHeld, AnswerLost
from simulator.faults.armed import Armed
from simulator.faults.kind import FaultKind, Place, Scope
from simulator.faults.registry import BadFault, kind_of, make_fault

_LONGEST_HOLD_S: Final = 3600.0

K = TypeVar("K", bound=FaultKind)
Resolve = Callable[[str, int | None], tuple[str, Place]]
ArmedFaults = list[Armed[Any]]


class FaultBoard:
    """The faults of one site."""

    def __init__(
        self, resolve: Resolve | None = None, changed: Callable[[], None] = lambda: None
    ) -> None:
        """`resolve(vm, disk)` finds (name, place) and raises ValueError; `changed` is told of news."""
        self._resolve = resolve
        self._changed = changed
        self._condition = threading.Condition()
        self._numbers = count(1)
        self._armed: dict[int, Armed[Any]] = {}
        self._by_kind: dict[type[FaultKind], tuple[Armed[Any], ...]] = {}
        self._calls: Counter[str] = Counter()
        self.answer_held = threading.Event()  # an answer that was to be held is ready now

    # Orders.

    def set(
        self,
        name: str,
        *,
        vm: str | None = None,
        disk: int | None = None,
        times: int | None = None,
        skip: int = 0,
        **options: Any,
    ) -> Armed[Any]:
        """Set a fault: for a VM (by name or id) and a disk (position or device key), or the host.

        It lets `skip` chances pass, then fires `times` times (None: until cleared) and
        stays on the board, spent, until it is cleared. Raises BadFault.
        """
        kind = make_fault(name, options)
        narrowest = Scope.HOST if vm is None else Scope.VM if disk is None else Scope.DISK
        if disk is not None and vm is None:
            raise BadFault(f"{name}: disk {disk} of which VM?")
        if narrowest > kind.SCOPE:
            raise BadFault(f"{name} cannot be set for one {narrowest.name.lower()} alone")
        for number, least in ((times, 1), (skip, 0)):
            if number is not None and (not isinstance(number, int) or number < least):
                raise BadFault(f"{name}: times is a number from 1 on, skip one from 0 on")
        shown, place = self._find(vm, disk) if vm is not None else (None, Place())
        with self._condition:
            armed = Armed(
                next(self._numbers), kind, shown, place, times, skip, self._condition, self._changed
            )
            self._armed[armed.number] = armed
            self._by_kind[type(kind)] = (*self._by_kind.get(type(kind), ()), armed)
        self._changed()
        return armed

    def _find(self, vm: str, disk: int | None) -> tuple[str, Place]:
        if self._resolve is None:
            return vm, Place(vm, disk)
        try:
            return self._resolve(vm, disk)
        except ValueError as error:
            raise BadFault(str(error)) from error

    def clear(
        self, which: Armed[Any] | int | str | None = None, *, vm: str | None = None
    ) -> ArmedFaults:
        """Take faults off the board: one, those of a name, of a VM, or all. What they hold goes on.

        Returns those taken. Raises BadFault for a number that is not on the board and a name
        that is no fault's.
        """
        if isinstance(which, str):
            kind_of(which)
        moid = self._find(vm, None)[1].vm if vm is not None else None
        with self._condition:
            if isinstance(which, int) and which not in self._armed:
                raise BadFault(f"no fault has the number {which}")
            gone = [
                one
                for one in self._armed.values()
                if which in (None, one, one.number, one.kind.NAME)
                and (moid is None or one.place.vm == moid)
            ]
            for one in gone:
                one.cleared = True
                del self._armed[one.number]
            for kind in {type(one.kind) for one in gone}:
                self._by_kind[kind] = tuple(one for one in self._by_kind[kind] if not one.cleared)
            self._condition.notify_all()
        self._changed()
        return gone

    def list(self) -> ArmedFaults:
        """What is on the board, spent faults included, in the order of setting."""
        with self._condition:
            return [*self._armed.values()]

    def assert_all_fired(self) -> None:
        """Raises AssertionError naming what is on the board and did not happen as often as ordered."""
        left = [one.missing for one in self.list() if one.missing]
        assert not left, f"ordered but never fired: {', '.join(left)}"

    def close(self) -> None:
        """The site ends: whatever a fault holds goes on. The list stays for who wants to see it."""
        with self._condition:
            for one in self._armed.values():
                one.cleared = True
            self._condition.notify_all()

    # Questions of the site's parts.

    def look(self, kind: type[K], place: Place | None = None) -> Iterator[Armed[K]]:
        """The faults of a kind that may fire at a place, oldest first."""
        at = place or Place()
        for one in self._by_kind.get(kind, ()):
            if one.live and one.covers(at):
                yield one

    def fire(
        self,
        kind: type[K],
        place: Place | None = None,
        when: Callable[[K], bool] = lambda _: True,
        **detail: Any,
    ) -> Armed[K] | None:
        """Let the faults of a kind take their chance; the first that fires. All of them count it."""
        fired: Armed[K] | None = None
        for one in self.look(kind, place):
            if when(one.kind) and (fired is None or one.skip) and one.fire(place, **detail):
                fired = fired or one
        return fired

    def hold(self, armed: Armed[Any], gone: Callable[[], bool], check_s: float) -> bool:
        """Wait until a fault is cleared; False when `gone`, asked every `check_s`, said so before."""
        while not armed.wait_cleared(check_s):
            if gone():
                return False
        return True

    # Answers of the API.

    def calls(self, method: str) -> int:
        """How many calls of a SOAP method were answered, with a result or a fault."""
        with self._condition:
            return self._calls[method]

    def answer_ready(self, method: str) -> bool:
        """An answer is ready: whether to send it. Returns late when it is held back."""
        with self._condition:
            self._calls[method] += 1
        if self.fire(AnswerLost, when=lambda kind: kind.method == method):
            return False
        held = self.fire(AnswerHeld, when=lambda kind: kind.method == method)
        if held:
            self.answer_held.set()
            held.wait_cleared(_LONGEST_HOLD_S)
        return True

    # Short orders for what tests want most.

    def fail_method(self, method: str, times: int = 1) -> Armed[Any]:
        """The next calls of a SOAP method end with SystemError."""
        return self.set("method-fail", method=method, times=times)

    def fail_task(self, method: str, times: int = 1) -> Armed[Any]:
        """The next tasks that a SOAP method starts end with SystemError, having done nothing."""
        return self.set("task-fail", method=method, times=times)

    def cut_answer(self, method: str, times: int = 1) -> Armed[Any]:
        """The next calls of a SOAP method take effect, but their answers are lost."""
        return self.set("answer-lost", method=method, times=times)

    def hold_answer(self, method: str) -> Armed[Any]:
        """The next call of a SOAP method takes effect; its answer waits for `release_answers`."""
        self.answer_held.clear()
        return self.set("answer-held", method=method, times=1)

    def release_answers(self) -> None:
        """Send what was held."""
        self.clear("answer-held")

    def hold_tasks(self, method: str) -> Armed[Any]:
        """Tasks that a SOAP method starts from now on do nothing until `release_tasks`."""
        return self.set("task-stall", method=method)

    def release_tasks(self) -> None:
        """Let held tasks work."""
        self.clear("task-stall")

    def cut_nfc(self, on_read: int) -> Armed[Any]:
        """Drop the connection instead of answering read request `on_read`, counted from 0 now."""
        return self.set("nfc-cut", skip=on_read, times=1)

    def fail_read(self, on_read: int) -> Armed[Any]:
        """Answer read request `on_read`, counted from 0 now, with an error."""
        return self.set("nfc-error-reply", skip=on_read, times=1)

    def hold_reads(self, on_read: int) -> Armed[Any]:
        """Answer neither read request `on_read`, counted from 0 now, nor later ones, until released."""
        return self.set("nfc-stall", skip=on_read)

    def release_reads(self) -> None:
        """Go on answering."""
        self.clear("nfc-stall")
