"""The order in which a backup must become durable, checked on a recording of what a hub did."""

from collections.abc import Callable, Sequence

from tests.unit.hub.repository.recorded_calls import Call

ACK = "ack"
COMMIT = "commit"

# A change of files, and the commit that tells of it.
_TELLS = {"rename layer": "sealed", "rename facts": "completed", "rmdir": "removed"}

Test = Callable[[Call], bool]


class OutOfOrder(AssertionError):
    """A step came before one that must be durable first."""


def check(calls: Sequence[Call]) -> None:
    """Raise OutOfOrder at the first step that speaks of something that is not durable yet.

    Of one disk of one job at a time: journal records after the layer's sync, acks after
    the journal's; the header after the tables' sync, the footer after the header's, the
    layer's name after the footer's; rows after names, and names after folders.
    """
    dirty: dict[str, int] = {}  # writes of a file that no sync covers
    named: set[str] = set()  # folders with entries that no sync covers
    footer = False
    untold = dict.fromkeys(_TELLS, 0)  # what happened that no commit has told of
    for at, call in enumerate(calls):
        if call.name == "pwritev":
            _check_write(at, call, dirty)
            footer = footer or b"SnSealed" in call.data
            dirty[_file(call)] = dirty.get(_file(call), 0) + 1
        elif call.name in ("fdatasync", "fsync"):
            dirty.pop(_file(call), None)
            named.discard(str(call.path))
        elif call.name == "rename":
            _require(not dirty.get(_file(call)), at, call, "the file has unsynced bytes")
            if call.kind == "layer":
                _require(footer, at, call, "the manifest has no footer")
                _require(not _dirty(dirty, "manifest"), at, call, "its manifest is not synced")
            named.add(str(call.target.parent))
            untold[f"rename {call.kind}"] = 1
        elif call.name in ("create", "mkdir", "link", "unlink", "rmdir"):
            named.add(str((call.target if call.name == "link" else call.path).parent))
            if call.name == "rmdir":
                named.discard(str(call.path))
                untold["rmdir"] = 1
        elif call.name == ACK:
            _require(not _dirty(dirty, "layer"), at, call, "data is not synced")
            _require(not _dirty(dirty, "manifest"), at, call, "the journal is not synced")
            _require(not named, at, call, f"folders are not synced: {sorted(named)}")
        elif call.name == COMMIT and call.text in _TELLS.values():
            what = next(name for name, told in _TELLS.items() if told == call.text)
            _require(bool(untold[what]), at, call, f"there was no {what} before")
            untold[what] = 0
            _require(not dirty, at, call, f"files are not synced: {sorted(dirty)}")
            _require(not named, at, call, f"folders are not synced: {sorted(named)}")


def require_steps(calls: Sequence[Call], *steps: tuple[str, Test]) -> None:
    """These steps are in the recording, each behind the one before. Raises OutOfOrder."""
    found = iter(enumerate(calls))
    for name, is_it in steps:
        for _, call in found:
            if is_it(call):
                break
        else:
            raise OutOfOrder(f"no {name} behind what must come before it")


def step(name: str, kind: str = "", **more: object) -> tuple[str, Test]:
    """A call by its name, the file's kind, and other fields."""

    def is_it(call: Call) -> bool:
        return (
            call.name == name
            and (not kind or call.kind == kind)
            and all(getattr(call, field) == value for field, value in more.items())
        )

    return f"{name} {kind} {more or ''}".strip(), is_it


def _check_write(at: int, call: Call, dirty: dict[str, int]) -> None:
    if call.kind == "manifest" and call.data.startswith(b"SnMr"):
        _require(not _dirty(dirty, "layer"), at, call, "the layer has unsynced bytes")
    if call.kind == "layer" and call.offset == 0 and any(call.data):
        _require(not _dirty(dirty, "layer"), at, call, "the header comes before the tables' sync")


def _file(call: Call) -> str:
    return f"{call.kind}:{call.path}"


def _dirty(dirty: dict[str, int], kind: str) -> bool:
    return any(name.startswith(f"{kind}:") for name in dirty)


def _require(right: bool, at: int, call: Call, problem: str) -> None:
    if not right:
        raise OutOfOrder(f"call {at}, {call.name} {call.path}{call.text}: {problem}")
