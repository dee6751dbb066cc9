"""Restore points of an earlier system: taken over in place, and read from the QCOW2 files they are."""
