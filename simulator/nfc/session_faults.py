"""Where faults come into an NFC session: opening, reading, reply heads, allocation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator.faults.api_kinds import SessionExpiry
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.faults.nfc_kinds import (
    AllocationWrong,
    NfcBadFragment,
    NfcCut,
    NfcErrorReply,
    NfcStall,
)
from simulator.machines import SimulatedVm
from simulator.nfc.frames import Fragment, IoRequest
from simulator.nfc.handles import Handle, NfcError
from simulator.nfc.wire import Wire

_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF


class SessionFaults:
    """The board, asked by one session in its thread."""

    def __init__(
        self, faults: FaultBoard, wire: Wire, expire_sessions: Callable[[], object]
    ) -> None:
        self._board = faults
        self._wire = wire
        self._expire_sessions = expire_sessions

    def _at(self, handle: Handle) -> Place:
        """The handle's disk; from now on the connection is about it, too."""
        self._wire.place = Place(self._wire.place.vm, handle.disk.key)
        return self._wire.place

    def opening(self, vm: SimulatedVm, path: str) -> None:
        """A disk file is to be opened. Raises NfcError when a fault wants that."""
        for disk in vm.all_disks:
            if any(link.file_name == path for link in vm.links(disk)):
                self._refuse("open", Place(vm.moid, disk.key), lambda kind: True)

    def reading(self, handle: Handle, request: IoRequest) -> None:
        """A read request arrived. Raises NfcError and Closed; returns late after a stall.

        Every fault counts the request, also when another one decides what happens.
        """
        at = self._at(handle)
        end = request.offset + request.length
        detail = {"offset": request.offset, "length": request.length}
        expired = self._board.fire(SessionExpiry, None, lambda kind: kind.on == "read")
        cut = self._board.fire(NfcCut, at, lambda kind: kind.at_byte is None, **detail)
        stall = self._board.fire(NfcStall, at, lambda kind: kind.at_byte is None, **detail)
        if expired:
            self._expire_sessions()
        if cut:
            self._wire.obey(cut)
        if stall:
            self._wire.obey(stall)
        self._refuse(
            "read",
            at,
            lambda kind: kind.offset is None or request.offset <= kind.offset < end,
        )

    def _refuse(self, on: str, at: Place, when: Callable[[NfcErrorReply], bool]) -> None:
        refused = self._board.fire(NfcErrorReply, at, lambda kind: kind.on == on and when(kind))
        if refused:
            raise NfcError(refused.kind.code, f"a fault refuses to {on}")

    def head(
        self, handle: Handle, frame_bytes: int, operation: int, fragment: Fragment
    ) -> tuple[int, int, Fragment]:
        """(payload bytes, operation id, fragment) as a reply's head is to tell them."""
        bad = self._board.fire(NfcBadFragment, self._at(handle))
        if not bad:
            return frame_bytes, operation, fragment
        name, by = bad.kind.field, bad.kind.by
        match name:
            case "frame_bytes":
                return frame_bytes + by & _U32, operation, fragment
            case "operation":
                return frame_bytes, operation + by & _U32, fragment
            case _:
                limit = _U64 if name == "offset" else _U32
                wrong = {name: getattr(fragment, name) + by & limit}
                return frame_bytes, operation, replace(fragment, **wrong)

    def allocation(
        self, handle: Handle, start: int, chunk_bytes: int, chunks: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Which chunks are to be called allocated, where `chunks` says which are."""
        at = self._at(handle)
        self._refuse("allocated", at, lambda kind: True)
        starts = start + np.arange(len(chunks), dtype=np.int64) * chunk_bytes
        for one in self._board.look(AllocationWrong, at):
            hidden = chunks & one.kind.picks(starts, chunk_bytes)
            if hidden.any() and one.fire(at, offsets=starts[hidden].tolist()):
                chunks = chunks & ~hidden
        return chunks
