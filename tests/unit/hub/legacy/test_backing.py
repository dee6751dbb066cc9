"""Which files of a folder build on which: told by QCOW2 headers alone."""

import json
import os
import struct
from pathlib import Path

import pytest

from hub.legacy.backing import NamedBase, named_bases
from hub.legacy.errors import FolderUnsearchable


def qcow2(path: Path, backing: str | bytes, *, version: int = 3) -> Path:
    """A file with the beginning of a QCOW2 header; nobody reads more of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = backing.encode() if isinstance(backing, str) else backing
    path.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", version, 512, len(name)).ljust(512) + name)
    return path


def bases(root: Path, *skipped: str) -> dict[str, set[str]]:
    """Paths relative to the folder; those that are not there end with a question mark."""

    def told(one: NamedBase) -> str:
        return os.path.relpath(one.base, root) + ("" if one.base_is_there else "?")

    found: dict[str, set[str]] = {}
    for one in named_bases(root, frozenset(skipped)):
        found.setdefault(os.path.relpath(one.file, root), set()).add(told(one))
    return found


@pytest.mark.parametrize("version", [2, 3])
def test_names_are_taken_from_the_files_own_folder(tmp_path: Path, version: int) -> None:
    base = qcow2(tmp_path / "a" / "base.qcow2", "")
    qcow2(tmp_path / "a" / "beside", "base.qcow2", version=version)
    qcow2(tmp_path / "b" / "above.bak", "../a/base.qcow2", version=version)
    qcow2(tmp_path / "absolute", str(base), version=version)
    qcow2(tmp_path / "scheme", f"file:{base}", version=version)
    qcow2(tmp_path / "gone", "/mnt/old/base.qcow2", version=version)
    assert bases(tmp_path) == {
        "a/beside": {"a/base.qcow2"},
        "b/above.bak": {"a/base.qcow2"},
        "absolute": {"a/base.qcow2"},
        "scheme": {"a/base.qcow2"},
        "gone": {os.path.relpath("/mnt/old/base.qcow2", tmp_path) + "?"},
    }


def test_described_base_is_one_too(tmp_path: Path) -> None:
    qcow2(tmp_path / "base", "")
    file = {"driver": "file", "filename": str(tmp_path / "base")}
    for name, described in (
        ("nested", {"driver": "qcow2", "file": file}),
        ("flat", {"file.driver": "file", "file.filename": str(tmp_path / "base")}),
        ("old", {"driver": "qcow2", "file": {"filename": f"file:{tmp_path / 'base'}"}}),
        ("list", [1]),
    ):
        qcow2(tmp_path / name, "json:" + json.dumps(described))
    qcow2(tmp_path / "broken", "json:{")
    assert bases(tmp_path) == {name: {"base"} for name in ("nested", "flat", "old")}


def test_links_of_files_are_followed_from_both_ends(tmp_path: Path) -> None:
    root = tmp_path / "root"
    qcow2(tmp_path / "outside" / "layer", "base")
    (root / "a").mkdir(parents=True)
    (root / "a" / "link").symlink_to(tmp_path / "outside" / "layer")
    (root / "a" / "base").write_bytes(b"")
    assert bases(root) == {"../outside/layer": {"a/base", "../outside/base?"}}


def test_what_is_no_readable_header_names_nothing(tmp_path: Path) -> None:
    for name, content in {
        "empty": b"",
        "short": b"QFI\xfb\0\0",
        "text": b"not an image, but a long enough text",
        "no base": struct.pack(">4sIQI", b"QFI\xfb", 3, 0, 0).ljust(512),
        "long name": struct.pack(">4sIQI", b"QFI\xfb", 3, 20, 1024) + b"x" * 2000,
        "beyond its end": struct.pack(">4sIQI", b"QFI\xfb", 3, 1 << 40, 4),
        "beyond all ends": struct.pack(">4sIQI", b"QFI\xfb", 3, (1 << 64) - 1, 4),
    }.items():
        (tmp_path / name).write_bytes(content)
    qcow2(tmp_path / "zero in it", b"a\0b")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "never")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "round").symlink_to(tmp_path)
    assert bases(tmp_path) == {}


def test_skipped_folders_are_those_of_the_root_alone(tmp_path: Path) -> None:
    for folder in ("own", "lost+found", "other/own"):
        qcow2(tmp_path / folder / "layer", "base")
    assert bases(tmp_path, "own") == {"other/own/layer": {"other/own/base?"}}


def test_folder_that_cannot_be_searched_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(FolderUnsearchable, match=r"Permission denied.*closed"):
        named_bases(tmp_path, frozenset())
