"""Facts as people read them: sizes, durations, times, states."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sendense import Backup, BackupStatus, BackupType, ConsistencyLevel

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(length_bytes: int | float) -> str:
    """ "0 B", "64.0 KiB", "102 GiB": three digits, binary units."""
    value, unit = float(length_bytes), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{value:.{1 if value < 99.95 else 0}f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min 05 s", "2 h 07 min"."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def when(timestamp: Timestamp) -> str:
    """UTC, to the second; empty when not set."""
    if not timestamp.seconds and not timestamp.nanos:
        return ""
    moment = datetime.fromtimestamp(timestamp.seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def elapsed(job: Backup) -> str:
    """How long a job took; empty while it has not both begun and ended."""
    if not job.started_at.seconds or not job.completed_at.seconds:
        return ""
    nanos = job.completed_at.ToNanoseconds() - job.started_at.ToNanoseconds()
    return duration(nanos / 1e9)


def status(value: int) -> str:
    """ "running"; a number this version does not know stays a number."""
    return _name(BackupStatus, value)


def backup_type(value: int) -> str:
    """ "full", "incremental"; empty when not decided yet."""
    return _name(BackupType, value)


def consistency(value: int) -> str:
    """ "crash", "file system"; empty while no snapshot was taken."""
    return _name(ConsistencyLevel, value)


def plain(text: str) -> str:
    """Someone else's text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _name(kind: type[BackupStatus | BackupType | ConsistencyLevel], value: int) -> str:
    known = kind(value)
    if known == 0:
        return str(value) if value else ""
    return known.name.lower().replace("_", " ")
