"""What was said before, so that it is not said every half minute."""

import threading


class Told:
    """Thread-safe. The last problem that was told of each thing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: dict[int | str, str] = {}

    def is_news(self, key: int | str, problem: str) -> bool:
        """Whether the problem was not the last one that was told; it is from now on."""
        with self._lock:
            news = self._problems.get(key) != problem
            self._problems[key] = problem
            return news

    def forget(self, key: int | str) -> None:
        """There is no problem any more."""
        with self._lock:
            self._problems.pop(key, None)
