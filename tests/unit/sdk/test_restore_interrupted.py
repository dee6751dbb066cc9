"""A restore interrupted (Ctrl-C) at each step of the life of its file leaves no part of one."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sendense import Client
from sendense.restore import target
from tests.unit.sdk.client_hub import ClientHub, draw, stored

CONTENT = draw("A.1B")


class Interrupt:
    """Raises KeyboardInterrupt in place of the nth traced step, as a signal handler would."""

    def __init__(self, step: int, *, each_opcode: bool) -> None:
        self.left = step
        self.each_opcode = each_opcode
        self.raised_at: tuple[str, int] | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != target.__file__ or frame.f_code.co_name == "close":
            return None
        # What `close` itself does is not interrupted: that is a second Ctrl-C.
        caller = frame.f_back
        if caller is not None and caller.f_code.co_name == "close":
            return None
        frame.f_trace_opcodes = self.each_opcode
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == ("opcode" if self.each_opcode else "line"):
            self.left -= 1
            if self.left == 0:
                self.raised_at = (frame.f_code.co_name, frame.f_lineno)
                raise KeyboardInterrupt
        return self._step


@pytest.fixture
def client() -> Iterator[Client]:
    with ClientHub() as hub, Client(hub.address, timeout_s=10) as client:
        hub.state.restore = lambda: stored(CONTENT)
        yield client


def interrupted_steps(client: Client, folder: Path, *, each_opcode: bool) -> Iterator[str]:
    """Restore again and again, interrupted one step later each time, until none is left."""
    for step in range(1, 10_000):
        interrupt = Interrupt(step, each_opcode=each_opcode)
        path = folder / f"{step}.raw"
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            client.restore_disk("job-1", 0, path, threads=1)
        except KeyboardInterrupt:
            assert interrupt.raised_at is not None
            left = {found.name for found in folder.iterdir()} - {path.name}
            assert not left, interrupt.raised_at
            # Once it has its name it is whole.
            assert not path.exists() or path.read_bytes() == CONTENT, interrupt.raised_at
            path.unlink(missing_ok=True)
        finally:
            sys.settrace(before)
        if interrupt.raised_at is None:
            assert path.read_bytes() == CONTENT
            return
        yield interrupt.raised_at[0]


@pytest.mark.parametrize("each_opcode", [False, True], ids=["lines", "opcodes"])
def test_interrupt_at_any_step_leaves_no_partial_file(client, tmp_path, each_opcode):
    functions = set(interrupted_steps(client, tmp_path, each_opcode=each_opcode))
    assert {"open", "_claim", "_lock", "resize", "commit", "_rename"} <= functions
