"""Disks whose bytes are real: sparse links, chains of them, and changed block tracking."""
