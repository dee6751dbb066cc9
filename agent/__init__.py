"""The Sendense agent: one per ESXi site; snapshots, reads and uploads."""
