"""The bytes that the host sends on one connection, counted from the banner on, without TLS.

Cuts and stalls that are ordered for a byte happen here, whatever is being said.
"""

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from simulator.faults.armed import Armed
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.faults.nfc_kinds import NfcCut, NfcStall

_CHECK_S: Final = 0.05


class Closed(Exception):
    """The peer is gone, or took longer than it may, or a fault cut the connection."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A fault fires after `within` more bytes."""

    within: int
    fault: Armed[Any]


class Wire:
    """One connection's way out. One thread uses it; `place` is filled in as it becomes known."""

    def __init__(self, faults: FaultBoard, connection: socket.socket) -> None:
        """`connection` is any descriptor of the connection that stays open as long as it."""
        self.place = Place()
        self._faults = faults
        self._connection = connection
        self._sent = 0
        self._offered: set[int] = set()  # each fault has one chance per connection

    def quiet(self, length: int) -> bool:
        """Whether the next `length` bytes can go out undisturbed."""
        return not self._chances(length)

    def _chances(self, length: int) -> list[tuple[int, Armed[Any]]]:
        kinds: tuple[type[NfcCut | NfcStall], ...] = (NfcCut, NfcStall)
        return [
            (one.kind.at_byte, one)
            for kind in kinds
            for one in self._faults.look(kind, self.place)
            if one.kind.at_byte is not None
            and one.kind.at_byte < self._sent + length
            and one.number not in self._offered
        ]

    def stop_within(self, length: int) -> Stop | None:
        """The first fault that fires within the next `length` bytes; None, as a rule: send them."""
        for at_byte, one in sorted(self._chances(length), key=lambda chance: chance[0]):
            self._offered.add(one.number)
            if one.fire(self.place, at_byte=max(at_byte, self._sent)):
                return Stop(max(0, at_byte - self._sent), one)
        return None

    def sent(self, length: int) -> None:
        """So many bytes went out."""
        self._sent += length

    def send(self, put: Callable[[bytes | memoryview], None], data: bytes | memoryview) -> None:
        """Send all of it through `put`, stopping where faults want it. Raises Closed."""
        rest = memoryview(data)
        while stop := self.stop_within(len(rest)):
            if stop.within:
                put(rest[: stop.within])
                self.sent(stop.within)
                rest = rest[stop.within :]
            self.obey(stop.fault)
        if len(rest):
            put(rest)
            self.sent(len(rest))

    def obey(self, fault: Armed[Any]) -> None:
        """Do what a fault that fired wants: raises Closed for a cut, returns late after a stall."""
        if isinstance(fault.kind, NfcCut):
            raise Closed("a fault cut the connection")
        if not self._faults.hold(fault, self.peer_gone, _CHECK_S):
            raise Closed("the reader left while the host was stalled")

    def peer_gone(self) -> bool:
        """Whether the other side has closed the connection, also when input is waiting."""
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP)
        return bool(poll.poll(0))
