"""The NFC service of an ESXi host: tickets, authd, and the disk protocol."""
