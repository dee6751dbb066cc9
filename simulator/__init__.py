"""A simulated ESXi site that pyVmomi and NFC clients cannot tell from a real host."""
