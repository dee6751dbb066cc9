"""Python's collector of cycles, kept away from what stays for the process's life."""

import gc


def exempt_what_is_there() -> None:
    """What start-up made is never looked at again.

    A full collection walks through all objects with every thread stopped. Of a hub's
    100,000 modules, classes and mappings it frees nothing and takes 50 ms: each list that
    is asked for just then would be that much slower.
    """
    gc.collect()
    gc.freeze()
