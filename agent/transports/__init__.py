"""Ways to the bytes of a disk: one protocol, one package per transport."""
