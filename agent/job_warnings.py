"""What a person should know of a job that goes on all the same."""

import threading

from sendense.v1 import backup_pb2


class JobWarnings:
    """The warnings that a job's last event carries. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warnings: list[backup_pb2.BackupWarning] = []

    def add(self, code: str, message: str, disk_label: str = "") -> None:
        """One more, unless it is there already; `message` is a sentence."""
        warning = backup_pb2.BackupWarning(code=code, message=message, disk_label=disk_label)
        with self._lock:
            # What is done again after the hub was away finds the same again.
            if warning not in self._warnings:
                self._warnings.append(warning)

    def messages(self) -> list[backup_pb2.BackupWarning]:
        """All of them, in the order they came."""
        with self._lock:
            return list(self._warnings)
