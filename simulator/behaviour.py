"""How the simulated host answers where real hosts differ, and faults that tests order."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Literal

DEFAULT_SLICE_BYTES = 32 << 30
LARGEST_BUFFER_BYTES = 2 << 20
_LONGEST_HOLD_S = 60.0


@dataclass(frozen=True, slots=True)
class Flavour:
    """What answers at the API, and how its NFC service is found."""

    api_type: Literal["HostAgent", "VirtualCenter"]
    nfc_moref: str
    nfc_service: str  # of tickets; authd connects it, plain or with "ssl" behind
    ticket_names_host: bool


FLAVOURS: dict[str, Flavour] = {
    # As captured on ESXi 8.0.3 without a vCenter.
    "esxi": Flavour("HostAgent", "ha-nfc-service", "nfc", ticket_names_host=False),
    # As other notes have it.
    "esxi_ha_nfc": Flavour("HostAgent", "ha-nfc", "ha-nfc", ticket_names_host=True),
    # A vCenter in front of the host, as far as API type and NFC tickets go.
    "vcenter": Flavour("VirtualCenter", "nfcService", "vpxa-nfc", ticket_names_host=True),
}


@dataclass
class Behaviour:
    """Settings of a running site; changing one takes effect at once."""

    flavour: Literal["esxi", "esxi_ha_nfc", "vcenter"] = "esxi"
    nfc_methods_refused: frozenset[str] = frozenset()  # WSDL names: MethodNotFound
    nfc_methods_forbidden: frozenset[str] = frozenset()  # WSDL names: NoPermission
    slice_bytes: int = DEFAULT_SLICE_BYTES  # of disk that one QueryChangedDiskAreas covers
    areas_per_slice: int = 2000
    star: Literal["allocated", "whole", "fault"] = "allocated"  # what change id * answers
    page_objects: int | None = None  # most objects in one RetrieveResult
    session_idle_s: float = 1800
    longest_wait_s: float = 1800  # of WaitForUpdatesEx without maxWaitSeconds
    nfc_idle_s: float = 900  # a reader that is silent for longer is dropped
    nfc_send_s: float = 60  # a reader that takes nothing for longer is dropped
    shuffle_fragments: bool = False  # read replies out of order, requests interleaved
    refuse_allocation_query: bool = False
    # Each link has its own tracking file; a revert goes on from the frozen link's. So the
    # uuid stays, what was tracked since the snapshot is forgotten, and sequence numbers
    # repeat: a change id from after the snapshot looks valid and is answered too little.
    # False: the tracking starts over with a new uuid, as is documented.
    revert_keeps_tracking: bool = False

    @property
    def site(self) -> Flavour:
        """What the flavour stands for."""
        return FLAVOURS[self.flavour]


class InjectedFault(Exception):
    """A fault that a test ordered fires now."""


class Faults:
    """Faults ordered by tests: each fires a given number of times at a given moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._methods: Counter[str] = Counter()
        self._tasks: Counter[str] = Counter()
        self._read_cuts: list[int] = []
        self._read_errors: list[int] = []
        self._hold_from: int | None = None
        self._released = threading.Event()
        self._reads = 0
        self._calls: Counter[str] = Counter()
        self._answer_cuts: Counter[str] = Counter()
        self._answer_holds: Counter[str] = Counter()
        self._answers_released = threading.Event()
        self._held_tasks: set[str] = set()
        self._tasks_released = threading.Condition(self._lock)
        self.answer_held = threading.Event()  # an answer that was to be held is ready now

    def fail_method(self, method: str, times: int = 1) -> None:
        """The next calls of a SOAP method end with SystemError."""
        with self._lock:
            self._methods[method] += times

    def fail_task(self, method: str, times: int = 1) -> None:
        """The next tasks that a SOAP method starts end with SystemError, having done nothing."""
        with self._lock:
            self._tasks[method] += times

    def cut_answer(self, method: str, times: int = 1) -> None:
        """The next calls of a SOAP method take effect, but their answers are lost."""
        with self._lock:
            self._answer_cuts[method] += times

    def hold_answer(self, method: str) -> None:
        """The next call of a SOAP method takes effect; its answer waits for `release_answers`."""
        with self._lock:
            self._answer_holds[method] += 1
            self._answers_released.clear()
            self.answer_held.clear()

    def release_answers(self) -> None:
        """Send what was held."""
        self._answers_released.set()

    def hold_tasks(self, method: str) -> None:
        """Tasks that a SOAP method starts from now on do nothing until `release_tasks`."""
        with self._lock:
            self._held_tasks.add(method)

    def release_tasks(self) -> None:
        """Let held tasks work."""
        with self._lock:
            self._held_tasks.clear()
            self._tasks_released.notify_all()

    def cut_nfc(self, on_read: int) -> None:
        """Drop the connection instead of answering read request `on_read`, counted from 0 now."""
        with self._lock:
            self._read_cuts.append(self._reads + on_read)

    def fail_read(self, on_read: int) -> None:
        """Answer read request `on_read`, counted from 0 now, with an error."""
        with self._lock:
            self._read_errors.append(self._reads + on_read)

    def hold_reads(self, on_read: int) -> None:
        """Answer neither read request `on_read`, counted from 0 now, nor later ones, until released."""
        with self._lock:
            self._hold_from = self._reads + on_read
            self._released.clear()

    def release_reads(self) -> None:
        """Go on answering."""
        with self._lock:
            self._hold_from = None
            self._released.set()

    def wait_released(self, timeout_s: float) -> bool:
        """Wait for `release_reads`; False when it did not come."""
        return self._released.wait(timeout_s)

    def assert_all_fired(self) -> None:
        """Raises AssertionError naming what was ordered and did not happen."""
        with self._lock:
            left = [f"{method} x{times}" for method, times in self._methods.items() if times]
            left += [f"task of {method} x{times}" for method, times in self._tasks.items() if times]
            left += [f"lost answer of {name} x{n}" for name, n in self._answer_cuts.items() if n]
            left += [f"held answer of {name} x{n}" for name, n in self._answer_holds.items() if n]
            left += [f"cut at read {number}" for number in self._read_cuts]
            left += [f"error at read {number}" for number in self._read_errors]
        assert not left, f"ordered but never fired: {', '.join(left)}"

    def method_called(self, method: str) -> None:
        """Raises InjectedFault when this call is to fail."""
        with self._lock:
            if self._methods[method] > 0:
                self._methods[method] -= 1
                raise InjectedFault(f"{method} was told to fail")

    def task_started(self, method: str) -> None:
        """Raises InjectedFault when this task is to fail."""
        with self._lock:
            if self._tasks[method] > 0:
                self._tasks[method] -= 1
                raise InjectedFault(f"the task of {method} was told to fail")

    def calls(self, method: str) -> int:
        """How many calls of a SOAP method were answered, with a result or a fault."""
        with self._lock:
            return self._calls[method]

    def answer_ready(self, method: str) -> Literal["send", "cut"]:
        """What is to happen with an answer; returns late when it is to be held."""
        with self._lock:
            self._calls[method] += 1
            if self._answer_cuts[method] > 0:
                self._answer_cuts[method] -= 1
                return "cut"
            if self._answer_holds[method] <= 0:
                return "send"
            self._answer_holds[method] -= 1
        self.answer_held.set()
        self._answers_released.wait(_LONGEST_HOLD_S)
        return "send"

    def wait_task(self, method: str) -> None:
        """Returns when a task of this method may work."""
        with self._lock:
            self._tasks_released.wait_for(lambda: method not in self._held_tasks, _LONGEST_HOLD_S)

    def read_requested(self) -> Literal["answer", "cut", "error", "hold"]:
        """What is to happen with the read request that just arrived."""
        with self._lock:
            number = self._reads
            self._reads += 1
            if number in self._read_cuts:
                self._read_cuts.remove(number)
                return "cut"
            if number in self._read_errors:
                self._read_errors.remove(number)
                return "error"
            if self._hold_from is not None and number >= self._hold_from:
                return "hold"
            return "answer"
