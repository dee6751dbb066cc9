"""Entry point of the `sendense` command, outside the package whose import loads gRPC."""

import os


def main() -> None:
    """Run the command."""
    # Read once, while gRPC is imported: its remarks about connections that end do
    # not belong between the command's own lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from sendense.cli.main import main as command

    command()
