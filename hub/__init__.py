"""The Sendense hub: catalog, repository and the gRPC services."""

import os

# Read once, while gRPC is imported: its remarks about connections that end do
# not belong into the program's log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
