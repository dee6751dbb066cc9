"""Entry point of the `sendense` command, outside the package whose import loads gRPC."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command."""
    # Imports take a moment, in which there is nothing to clean up after Ctrl-C. An
    # exception could be swallowed or told of by the module that is being imported.
    # Where interrupts are ignored (nohup, a background job) they stay ignored.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _end_at_once)
    # Read once, while gRPC is imported: its remarks about connections that end do
    # not belong between the command's own lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from sendense.cli.main import main as command

    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end_at_once(signal_number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
