"""Things of one name are done one after the other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub.errors import CatalogUnavailable

TURN_S: Final = 60.0


class Turns:
    """Thread-safe. Names are held for as long as somebody is at it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def turn(self, name: str, timeout_s: float = TURN_S) -> Iterator[None]:
        """Nobody else has the name inside. Raises CatalogUnavailable when it is not given back."""
        with self._changed:
            if not self._changed.wait_for(lambda: name not in self._taken, timeout_s):
                raise CatalogUnavailable(f"{name} is still being worked on")
            self._taken.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(name)
                self._changed.notify_all()
