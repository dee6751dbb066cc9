"""Control commands: the fault board."""

from collections.abc import Callable

from simulator.control_client import Answer, ControlError
from simulator.faults.board import FaultBoard


class FaultCommands:
    """Setting, listing and clearing faults."""

    def __init__(self, faults: FaultBoard) -> None:
        self._faults = faults

    def commands(self) -> dict[str, Callable[[Answer], Answer]]:
        """By name."""
        return {
            "fault-set": self._set,
            "fault-list": lambda _: {"faults": [one.facts() for one in self._faults.list()]},
            "fault-clear": self._clear,
        }

    def _set(self, request: Answer) -> Answer:
        options = request.get("options") or {}
        if not isinstance(options, dict):
            raise ControlError("options is an object")
        armed = self._faults.set(
            str(request["name"]),
            vm=request.get("vm"),
            disk=request.get("disk"),
            times=request.get("times"),
            skip=request.get("skip") or 0,
            **options,
        )
        return {"fault": armed.facts()}

    def _clear(self, request: Answer) -> Answer:
        gone = self._faults.clear(request.get("which"), vm=request.get("vm"))
        return {"cleared": [one.facts() for one in gone]}
