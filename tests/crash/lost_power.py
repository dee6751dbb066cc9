"""What a power loss leaves of files: a replay of recorded changes, with those lost that no sync covers.

Of a file, what was synced is there; of what was written since, any page may be, and the
last may be torn. Of a folder, the entries of its last sync are there, and of the changes
since as many as came first.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.unit.hub.repository.recorded_calls import Call

_PAGE_BYTES = 4096
_SECTOR_BYTES = 512


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)  # as the programs see it
    synced: bytes = b""
    unsynced: list[Call] = field(default_factory=list)

    def change(self, call: Call) -> None:
        self.unsynced.append(call)
        _apply(self.content, call)

    def sync(self) -> None:
        self.synced, self.unsynced = bytes(self.content), []

    def after_loss(self, random: Random) -> bytes:
        left = bytearray(self.synced)
        luck = random.random()
        for call in self.unsynced:
            if call.name == "ftruncate":
                if random.random() < luck:
                    _apply(left, call)
                continue
            for at in range(0, len(call.data), _PAGE_BYTES):
                page = call.data[at : at + _PAGE_BYTES]
                if random.random() >= luck:
                    continue
                if at + _PAGE_BYTES >= len(call.data) and random.random() < 0.5:
                    page = page[: random.randrange(0, len(page) + 1, _SECTOR_BYTES)]
                _apply(left, Call("pwritev", offset=call.offset + at, data=page))
        return bytes(left)


@dataclass(eq=False)
class _Folder:
    entries: dict[str, "_File | _Folder"] = field(default_factory=dict)
    synced: dict[str, "_File | _Folder"] = field(default_factory=dict)
    # States between the last sync and now, the oldest first.
    unsynced: list[dict[str, "_File | _Folder"]] = field(default_factory=list)

    def changed(self) -> None:
        self.unsynced.append(dict(self.entries))

    def sync(self) -> None:
        self.synced, self.unsynced = dict(self.entries), []

    def after_loss(self, random: Random) -> dict[str, "_File | _Folder"]:
        return random.choice([self.synced, *self.unsynced])


def _apply(content: bytearray, call: Call) -> None:
    if call.name == "ftruncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    if not call.data:
        return
    content.extend(bytes(max(0, call.offset - len(content))))
    content[call.offset : call.offset + len(call.data)] = call.data


class LostPower:
    """The files below a folder that was empty and durable when the recording began."""

    def __init__(self, root: Path, calls: Sequence[Call]) -> None:
        """Replay the calls, up to the moment of the loss."""
        self._root = root
        self._top = _Folder()
        for call in calls:
            self._replay(call)

    def write(self, random: Random) -> None:
        """Put what is left into the folder, in the place of what is there."""
        for path in self._root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _write(self._top, self._root, random)

    def _replay(self, call: Call) -> None:
        if call.name in ("create", "mkdir"):
            folder = self._folder(call.path.parent)
            if folder is not None:
                folder.entries[call.path.name] = _File() if call.name == "create" else _Folder()
                folder.changed()
        elif call.name in ("unlink", "rmdir"):
            folder = self._folder(call.path.parent)
            if folder is not None and folder.entries.pop(call.path.name, None) is not None:
                folder.changed()
        elif call.name in ("rename", "link"):
            folder = self._folder(call.path.parent)
            # Within a folder: the repository's are of no other kind.
            assert call.path.parent == call.target.parent
            if folder is not None:
                folder.entries[call.target.name] = folder.entries[call.path.name]
                if call.name == "rename":
                    del folder.entries[call.path.name]
                folder.changed()
        elif call.name in ("pwritev", "ftruncate"):
            found = self._find(call.path)
            if isinstance(found, _File):
                found.change(call)
        elif call.name in ("fsync", "fdatasync"):
            found = self._find(call.path)
            if found is not None:
                found.sync()

    def _find(self, path: Path) -> "_File | _Folder | None":
        if not path.is_relative_to(self._root):
            return None
        found: _File | _Folder | None = self._top
        for name in path.relative_to(self._root).parts:
            found = found.entries.get(name) if isinstance(found, _Folder) else None
        return found

    def _folder(self, path: Path) -> _Folder | None:
        found = self._find(path)
        return found if isinstance(found, _Folder) else None


def _write(folder: _Folder, path: Path, random: Random) -> None:
    for name, entry in sorted(folder.after_loss(random).items()):
        if isinstance(entry, _Folder):
            (path / name).mkdir()
            _write(entry, path / name, random)
        else:
            (path / name).write_bytes(entry.after_loss(random))
