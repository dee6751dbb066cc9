"""The Sendense agent: one per ESXi site; snapshots, reads and uploads."""

import os

# Read once, while gRPC is imported: its remarks about connections that end do
# not belong into the program's log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
