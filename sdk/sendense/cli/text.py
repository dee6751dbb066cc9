"""Facts as people read them: sizes, durations, times, states."""

import re
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sendense import (
    Backup,
    BackupDisk,
    BackupStatus,
    BackupType,
    BackupWarning,
    ConsistencyLevel,
    DiskSampling,
    ReadMethod,
    RecoveredLayer,
    RecoveryDecision,
)
from sendense.models import OpenEnum

CANCELLED = "cancelled: "
_ENDINGS = {1: "st", 2: "nd", 3: "rd"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
# From a million up; smaller ones are offsets and lengths that somebody wants to the byte.
_BYTES = re.compile(r"\b(\d{7,}) bytes\b")


def size(length_bytes: int | float) -> str:
    """ "0 B", "64.0 KiB", "102 GiB": three digits, binary units."""
    value, unit = float(length_bytes), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{value:.0f} B"
    return f"{value:.{1 if value < 99.95 else 0}f} {_UNITS[unit]}"


def with_sizes(sentence: str) -> str:
    """A sentence whose large numbers of bytes are sizes, unless two would then look the same."""
    numbers = {int(digits) for digits in _BYTES.findall(sentence)}
    if len({size(length) for length in numbers}) < len(numbers):
        return sentence
    return _BYTES.sub(lambda match: size(int(match[1])), sentence)


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


def ordinal(number: int) -> str:
    """ "1st", "2nd", "11th"."""
    ending = "th" if number % 100 in (11, 12, 13) else _ENDINGS.get(number % 10, "th")
    return f"{number}{ending}"


def stage(job: Backup) -> str:
    """The status in a word or two; of a job in the queue its place: "queued (3rd)"."""
    if job.queue_position:
        return f"queued ({ordinal(job.queue_position)})"
    return status(job.status)


def state(job: Backup) -> str:
    """The status, and what belongs to it: "completed, 1 warning", "queued (3rd), waits for ..."."""
    name = stage(job)
    if job.waiting_for:
        return f"{name}, waits for {job.waiting_for}"
    if BackupStatus(job.status) is BackupStatus.COMPLETED and job.warnings:
        return f"{name}, {count(len(job.warnings), 'warning')}"
    return name


def count(number: int, thing: str) -> str:
    """ "1 warning", "2 warnings"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def problem(of: Backup | BackupDisk) -> str:
    """Why a job or disk failed or was cancelled, with the reason's code; empty when it was not."""
    error = of.error
    message = error.message
    if BackupStatus(of.status) is BackupStatus.CANCELLED:
        # The status says so beside this.
        while message.startswith(CANCELLED):
            message = message.removeprefix(CANCELLED)
    return f"{message} ({error.reason})" if error.reason not in ("", "CANCELLED") else message


def of_job(job: Backup, told: str) -> str:
    """What is told of a job's reading and sending; empty when imported: nobody knows them then."""
    return "" if job.HasField("imported_at") else told


def of_disk(disk: BackupDisk, told: str) -> str:
    """As `of_job`, of a disk: one that was imported has no root digest though it is complete."""
    complete = BackupStatus(disk.status) is BackupStatus.COMPLETED
    return "" if complete and not disk.root_digest else told


def disk_key(key: int) -> str:
    """VMware's key of a disk; empty for 0, which no disk has: it is not known (imported)."""
    return str(key or "")


def backup_type(value: int) -> str:
    """ "full", "incremental"; empty when not decided yet."""
    return _name(BackupType, value)


def consistency(value: int) -> str:
    """ "crash", "file system"; empty while no snapshot was taken."""
    return _name(ConsistencyLevel, value)


def read_method(value: int) -> str:
    """ "allocated", "changed", "compared"; empty where it was not recorded."""
    return _name(ReadMethod, value)


def recovery_decision(value: int) -> str:
    """ "queued", "waits for agent", "completed", ..."""
    return _name(RecoveryDecision, value)


def recovered_layer(value: int) -> str:
    """ "none", "reopened", "sealed"."""
    return _name(RecoveredLayer, value)


def resumes(disk: BackupDisk) -> str:
    """ "2, 1.5 MiB sent again"; empty for an upload that never broke off."""
    if not disk.resume_count:
        return ""
    return f"{disk.resume_count}, {size(disk.bytes_resent)} sent again"


def sampling(found: DiskSampling) -> str:
    """What a sample of the clusters that tracking called unchanged found."""
    checked = f"{count(found.clusters_sampled, 'cluster')} called unchanged were checked"
    if found.clusters_missed:
        return f"{checked}; {found.clusters_missed} had changed"
    bound = found.undetected_clusters_bound
    drawn_from = found.clusters_drawn_from
    return f"{checked}, none had changed: with 95 % confidence fewer than {bound} of {drawn_from}"


def warning(told: BackupWarning) -> str:
    """A warning in one line, with its disk and its code."""
    about = f"{told.disk_label}: " if told.disk_label else ""
    if told.message.startswith(told.disk_label):
        about = ""
    return f"{about}{told.message} ({told.code})"


def plain(text: str) -> str:
    """Someone else's text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _name(kind: type[OpenEnum], value: int) -> str:
    known = kind(value)
    if known == 0:
        return str(value) if value else ""
    return known.name.lower().replace("_", " ")
