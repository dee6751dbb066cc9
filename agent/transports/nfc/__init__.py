"""VMware's NFC protocol: disks read from a host's port 902 without a vendor library."""
